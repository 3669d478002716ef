//! SSDP: a multicast question, unicast answers (DSP0266 "UPnP compatibility").

use crate::model::ResourcePath;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::Instant;

const SERVICE: &str = "urn:dmtf-org:service:redfish-rest:1";
/// Answers taken.
const ANSWERS: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub struct SsdpOptions {
    /// 239.255.255.250:1900 but in tests.
    pub group: SocketAddr,
    /// The address of the interface to ask on.
    pub from: Ipv4Addr,
    /// How long answers are waited for.
    pub patience: Duration,
}

impl Default for SsdpOptions {
    fn default() -> Self {
        let group = (Ipv4Addr::new(239, 255, 255, 250), 1900).into();
        Self { group, from: Ipv4Addr::UNSPECIFIED, patience: Duration::from_secs(3) }
    }
}

/// Who says to be a Redfish service, each once: address and port. Whether it is so, [`probe`](fn@super::probe) tells.
pub async fn search(options: &SsdpOptions) -> std::io::Result<Vec<(IpAddr, u16)>> {
    let socket = UdpSocket::bind((options.from, 0)).await?;
    let seconds = options.patience.as_secs().clamp(1, 5);
    let question = format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {}\r\nMAN: \"ssdp:discover\"\r\nMX: {seconds}\r\nST: {SERVICE}\r\n\r\n",
        options.group
    );
    socket.send_to(question.as_bytes(), options.group).await?;
    let until = Instant::now() + options.patience;
    let mut found = BTreeMap::new();
    let mut buffer = [0; 2048];
    while found.len() < ANSWERS {
        let Ok(received) = tokio::time::timeout_at(until, socket.recv_from(&mut buffer)).await else { break };
        let Ok((len, sender)) = received else { continue };
        if let Some(port) = port_of(&buffer[..len]) {
            found.insert((sender.ip(), port), ());
        }
    }
    Ok(found.into_keys().collect())
}

/// The port of an answer that is one. Its address is the sender's: what stands in the answer could be anybody's.
fn port_of(answer: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut lines = text.lines();
    if !lines.next()?.starts_with("HTTP/1.1 200") {
        return None;
    }
    let headers: Vec<(String, &str)> = lines
        .take(32)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
        .collect();
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    if !header("st")?.starts_with("urn:dmtf-org:service:redfish-rest:") {
        return None;
    }
    let (scheme, rest) = header("al")?.split_once("://")?;
    ResourcePath::new(&format!("https://{rest}/"))?;
    let host = rest.split('/').next()?;
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let port = host.rsplit_once(':').filter(|(before, _)| !before.contains(':') || before.ends_with(']'));
    port.map_or(Some(usual), |(_, port)| port.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_told_from_others() {
        let answer =
            |st: &str, al: &str| format!("HTTP/1.1 200 OK\r\nST:{st}\r\nUSN:uuid:1\r\nAL:{al}\r\n\r\n");
        let redfish = "urn:dmtf-org:service:redfish-rest:1:6";
        assert_eq!(port_of(answer(redfish, "https://10.0.0.1/redfish/v1").as_bytes()), Some(443));
        assert_eq!(port_of(answer(redfish, "http://10.0.0.1:8000/redfish/v1/").as_bytes()), Some(8000));
        assert_eq!(port_of(answer(redfish, "https://[fd00::1]/redfish/v1/").as_bytes()), Some(443));
        assert_eq!(port_of(answer("upnp:rootdevice", "https://10.0.0.1/").as_bytes()), None);
        assert_eq!(port_of(b"NOTIFY * HTTP/1.1\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn a_service_on_the_network_is_found() {
        let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let group = service.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            let (len, sender) = service.recv_from(&mut buffer).await.unwrap();
            let question = String::from_utf8_lossy(&buffer[..len]).into_owned();
            for text in [
                "HTTP/1.1 200 OK\r\nST: urn:dmtf-org:service:redfish-rest:1\r\nAL: https://1.2.3.4:4443/redfish/v1/\r\n\r\n",
                "rubbish",
            ] {
                service.send_to(text.as_bytes(), sender).await.unwrap();
            }
            question
        });
        let options = SsdpOptions { group, from: Ipv4Addr::LOCALHOST, patience: Duration::from_secs(1) };
        let found = search(&options).await.unwrap();
        assert_eq!(found, [(Ipv4Addr::LOCALHOST.into(), 4443)], "the sender's address counts");
        let question = answering.await.unwrap();
        assert!(question.starts_with("M-SEARCH * HTTP/1.1\r\n") && question.contains(SERVICE), "{question}");
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(HTTP/1.1 200|ST|AL|:|/|\r\n|urn:dmtf-org:service:redfish-rest:|[a-z0-9]){0,40}") {
            port_of(&bytes);
            port_of(text.as_bytes());
        }
    }
}
