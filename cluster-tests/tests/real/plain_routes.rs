//! Routes that are not MCP: a key that the client sends decides, or nothing does.

use std::collections::BTreeSet;

use cluster_tests::real::cluster::Plan;
use cluster_tests::real::http;
use cluster_tests::real::upstream::Upstream;

/// Who answered, and over how many hops.
async fn asked(url: &str, headers: &[(&str, &str)]) -> (String, String) {
    let answer = http::request("GET", url, headers, "").await.unwrap();
    let header = |name| answer.header(name).unwrap().to_owned();
    (header("ringway-node"), header("ringway-hops"))
}

#[tokio::test]
async fn a_key_has_the_same_owner_whichever_node_is_asked() {
    // What answers does not matter here; that it is asked by the key's owner does.
    let server = Upstream::demo().await.unwrap();
    let upstream = format!("http://{}", server.address().unwrap());
    let config = format!(
        "[[route]]\npath = \"/free\"\naffinity = \"none\"\nupstream = [\"{upstream}\"]\n\
         [[route]]\npath = \"/jobs\"\naffinity = {{ header = \"X-Job-Id\" }}\nupstream = [\"{upstream}\"]\n\
         [[route]]\npath = \"/carts\"\naffinity = {{ cookie = \"sid\" }}\nupstream = [\"{upstream}\"]\n\
         [[route]]\npath = \"/files\"\naffinity = {{ query = \"name\" }}\nupstream = [\"{upstream}\"]\n"
    );
    let cluster = Plan::nodes(3).config(config).start().await.unwrap();
    let mut owners = BTreeSet::new();
    for key in 0..20 {
        let key = format!("key-{key}");
        let expected = cluster.admin_json("a", &format!("/v1/ring/lookup?key={key}")).await.unwrap();
        let expected = expected["owner"].as_str().unwrap().to_owned();
        for name in cluster.names() {
            let hops = if name == expected { "0" } else { "1" };
            let node = cluster.node(&name);
            let wanted = (expected.clone(), hops.to_owned());
            let cookie = format!("theme=dark; sid={key}");
            assert_eq!(asked(&node.url("/jobs/17"), &[("x-job-id", key.as_str())]).await, wanted);
            assert_eq!(asked(&node.url("/carts"), &[("cookie", cookie.as_str())]).await, wanted);
            assert_eq!(asked(&node.url(&format!("/files?name={key}")), &[]).await, wanted);
            assert_eq!(asked(&node.url("/free/x"), &[]).await, (name.clone(), "0".to_owned()));
            assert_eq!(asked(&node.url("/jobs"), &[]).await, (name, "0".to_owned()), "no key, no owner");
        }
        owners.insert(expected);
    }
    assert_eq!(owners.len(), 3, "twenty keys fall to all three nodes");
}
