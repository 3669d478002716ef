//! The default prober: iputils `ping`, run on the node through a command such as `ssh {node}` or `ip netns exec {node}`.

use super::{Probe, Prober, Reach};
use async_trait::async_trait;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// Echo requests per size: one may be lost for other reasons.
const COUNT: &str = "2";
const PATIENCE: Duration = Duration::from_secs(15);
const MAX_OUTPUT_BYTES: u64 = 64 << 10;

pub struct Ping {
    /// The command in front, word by word; `{node}` becomes the node's name.
    through: Vec<String>,
}

impl Ping {
    /// `through` is split at spaces. Empty: from this machine.
    pub fn through(through: &str) -> Self {
        Self { through: through.split_whitespace().map(str::to_owned).collect() }
    }

    fn words(&self, probe: &Probe, ip_bytes: u32) -> Vec<String> {
        let through = self.through.iter().map(|word| word.replace("{node}", probe.from.node.as_str()));
        let header_bytes = if probe.from.address.is_ipv4() { 20 + 8 } else { 40 + 8 };
        let payload = ip_bytes.saturating_sub(header_bytes).to_string();
        let (from, to) = (probe.from.address.to_string(), probe.to.address.to_string());
        let version = if matches!(probe.to.address, IpAddr::V4(_)) { "-4" } else { "-6" };
        let ping = [
            "ping", version, "-n", "-M", "do", "-c", COUNT, "-i", "0.2", "-W", "1", "-s", &payload, "-I",
            &from, &to,
        ];
        through.chain(ping.map(str::to_owned)).collect()
    }
}

#[async_trait]
impl Prober for Ping {
    async fn probe(&self, probe: &Probe, ip_bytes: u32) -> Reach {
        let words = self.words(probe, ip_bytes);
        let failed = |reason: String| Reach::NotTried { reason };
        let spawned = Command::new(&words[0])
            .args(&words[1..])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(e) => return failed(format!("{}: {e}", words[0])),
        };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let read = async {
            let (out, err) = tokio::join!(text(out), text(err));
            (child.wait().await, out + &err)
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Err(_) => failed(format!("'{}' took longer than {} s", words.join(" "), PATIENCE.as_secs())),
            Ok((Err(e), _)) => failed(format!("{}: {e}", words[0])),
            Ok((Ok(status), said)) => answer(status.code(), &said),
        }
    }
}

async fn text(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What could be read until an error is what there is.
        let _ = stream.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// iputils: 0 an answer came, 1 none came, 2 another error.
fn answer(code: Option<i32>, said: &str) -> Reach {
    if code == Some(0) {
        return Reach::Passed;
    }
    if said.contains("Message too long") || said.contains("message too long") || said.contains("Frag needed")
    {
        return Reach::TooBig { path_bytes: path_bytes(said) };
    }
    match code {
        Some(1) => Reach::Lost,
        _ => {
            let line = said.lines().map(str::trim).find(|line| !line.is_empty());
            Reach::NotTried {
                reason: line.unwrap_or("ping ended without a word").chars().take(200).collect(),
            }
        }
    }
}

/// `mtu=1500`, `mtu: 1500`, `mtu = 1500`, by version of iputils.
fn path_bytes(said: &str) -> Option<u32> {
    let after = said.rsplit_once("mtu")?.1;
    let digits: String =
        after.chars().skip_while(|c| " :=".contains(*c)).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::mtu::Endpoint;

    #[test]
    fn what_ping_says_is_understood() {
        let local = "ping: local error: message too long, mtu=1500\n";
        assert_eq!(answer(Some(1), local), Reach::TooBig { path_bytes: Some(1500) });
        let router = "From 10.0.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1480)\n";
        assert_eq!(answer(Some(1), router), Reach::TooBig { path_bytes: Some(1480) });
        assert_eq!(answer(Some(1), "2 packets transmitted, 0 received"), Reach::Lost);
        assert_eq!(answer(Some(0), ""), Reach::Passed);
        let reason = "ping: bind: Cannot assign requested address".to_owned();
        assert_eq!(answer(Some(2), &format!("{reason}\n")), Reach::NotTried { reason });
        assert!(matches!(answer(Some(255), "ssh: Could not resolve hostname"), Reach::NotTried { .. }));
        assert!(matches!(answer(None, ""), Reach::NotTried { .. }));
    }

    fn end(node: &str, address: &str) -> Endpoint {
        Endpoint { node: node.into(), interface: "p0".into(), address: address.parse().unwrap() }
    }

    #[test]
    fn the_command_is_what_the_node_runs() {
        let probe = Probe { from: end("node-1", "10.0.0.1"), to: end("node-2", "10.0.0.2") };
        let words = Ping::through("ssh -o BatchMode=yes {node}").words(&probe, 9000).join(" ");
        assert!(words.starts_with("ssh -o BatchMode=yes node-1 ping -4 -n -M do"), "{words}");
        assert!(words.ends_with("-s 8972 -I 10.0.0.1 10.0.0.2"), "{words}");
        let probe = Probe { from: end("a", "2001:db8::1"), to: end("b", "2001:db8::2") };
        assert!(
            Ping::through("").words(&probe, 9000).join(" ").contains("-6 -n -M do -c 2 -i 0.2 -W 1 -s 8952")
        );
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_named() {
        let probe = Probe { from: end("node-1", "127.0.0.1"), to: end("node-2", "127.0.0.1") };
        let reach = Ping::through("no-such-command-here").probe(&probe, 1500).await;
        assert!(
            matches!(&reach, Reach::NotTried { reason } if reason.contains("no-such-command-here")),
            "{reach:?}"
        );
        // `false` stands for a ping that hears nothing.
        assert_eq!(Ping::through("false").probe(&probe, 1500).await, Reach::Lost);
        assert_eq!(Ping::through("true").probe(&probe, 1500).await, Reach::Passed);
    }
}
