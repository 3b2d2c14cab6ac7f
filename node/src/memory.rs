//! How much memory processes of this machine have in use, as Linux tells it.

/// The memory that is this process's own, what it shares with its device hosts, and what is theirs alone, in bytes.
pub fn in_use(hosts: impl IntoIterator<Item = u32>) -> u64 {
    let own = resident("self");
    let theirs: u64 = hosts.into_iter().map(|pid| resident(&pid.to_string()).0).sum();
    own.0 + own.1 + theirs
}

/// Of a process: what nobody else has, and what is shared memory. A process that is gone has none.
fn resident(process: &str) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    (field(&status, "RssAnon:"), field(&status, "RssShmem:"))
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_touched_is_in_use() {
        let before = in_use([]);
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        let now = in_use([]);
        assert!(before > 0 && now >= before + (48 << 20), "{before} {now}");
        drop(touched);
        assert!(in_use([std::process::id()]) > in_use([]), "a host is counted too");
        assert_eq!(field("RssAnon:\t   1234 kB\nRssShmem:\t 5 kB\n", "RssShmem:"), 5 << 10);
        assert_eq!(resident("0"), (0, 0));
    }
}
