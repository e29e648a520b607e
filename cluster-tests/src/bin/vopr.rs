fn main() {
    use cluster_tests::sim::{self, Telling};
    use proto::core::tenure::Rules;
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.len() == 1 {
        let r = sim::run(args[0].parse().unwrap(), Rules::ALL, Telling::Printed);
        println!("{r:?}");
        return;
    }
    let (a, b): (u64, u64) = (args[0].parse().unwrap(), args[1].parse().unwrap());
    let t = std::time::Instant::now();
    let mut c = sim::Counts::default();
    let mut bad: std::collections::BTreeMap<String, Vec<u64>> = Default::default();
    for seed in a..b {
        let r = sim::run(seed, Rules::ALL, Telling::Silent);
        c += &r.counts;
        if let Some(v) = r.violation {
            if bad.values().map(|v| v.len()).sum::<usize>() < 12 {
                println!("{seed}: {} {}", v.invariant, v.text);
            }
            bad.entry(v.invariant.to_string()).or_default().push(seed);
        }
    }
    println!("{c:?} {:?}", t.elapsed());
    for (k, v) in bad {
        println!("{k}: {} {:?}", v.len(), &v[..v.len().min(15)]);
    }
}
