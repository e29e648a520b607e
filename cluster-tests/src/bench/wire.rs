//! Bytes on the loopback device, as the kernel counts them. Called by `hops`.

use anyhow::Context as _;

/// What the device has received so far: on loopback every packet is received once, headers and acknowledgements
/// included, and a batch that is handed over as one packet has one header.
pub(super) fn loopback_bytes() -> anyhow::Result<u64> {
    received(&std::fs::read_to_string("/proc/net/dev")?, "lo").context("no loopback device in /proc/net/dev")
}

/// The first number behind the device's name.
fn received(text: &str, device: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, counts) = lines.find(|(name, _)| name.trim() == device)?;
    counts.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_whole_name() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n  \
                    elo: 7 1 0 0 0 0 0 0 9 1\n    lo: 123456 78 0 0 0 0 0 0 123456 78\n";
        assert_eq!(received(text, "lo"), Some(123_456));
        assert_eq!(received(text, "elo"), Some(7));
        assert_eq!(received(text, "eth0"), None);
    }

    #[test]
    fn this_machine_has_a_loopback_device() {
        loopback_bytes().expect("a number");
    }
}
