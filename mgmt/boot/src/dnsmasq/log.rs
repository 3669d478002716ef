//! What dnsmasq says of each step, with `log-dhcp` (dnsmasq 2.89 to 2.91: `src/rfc2131.c`, `src/tftp.c`).

use crate::event::Step;
use crate::node::Mac;
use std::net::Ipv4Addr;

/// One line that means something to a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub mac: Option<Mac>,
    pub address: Option<Ipv4Addr>,
    pub step: Step,
    pub detail: String,
}

/// None for lines that are no step of a boot.
pub fn parse(line: &str) -> Option<Line> {
    // `dnsmasq-dhcp[12]: 1234 DHCPACK(eth0) 10.0.0.5 52:54:00:12:34:56 name`
    let (program, message) = line.split_once(": ")?;
    if program.contains("dnsmasq-tftp") {
        return tftp(message);
    }
    if !program.contains("dnsmasq-dhcp") {
        return None;
    }
    let message = match message.split_once(' ') {
        Some((number, rest)) if number.chars().all(|c| c.is_ascii_digit()) => rest,
        _ => message,
    };
    let (what, rest) = message.split_once('(')?;
    let words: Vec<&str> = rest.split_whitespace().skip(1).collect();
    let mac = words.iter().find_map(|w| w.parse::<Mac>().ok());
    let address = words.iter().find_map(|w| w.parse::<Ipv4Addr>().ok());
    mac?;
    let ignored = words.contains(&"ignored");
    let (step, detail) = match what {
        "DHCPDISCOVER" | "DHCPREQUEST" | "PXE" if ignored => {
            (Step::Ignored, "no answer was given: quarantine".to_owned())
        }
        "DHCPDISCOVER" => (Step::Asked, String::new()),
        "DHCPACK" => (Step::Leased, address.map(|a| a.to_string()).unwrap_or_default()),
        // `PXE(eth0) MAC proxy` is the answer to a client of another DHCP server.
        "PXE" => {
            (Step::Offered, words.last().filter(|w| w.parse::<Mac>().is_err()).unwrap_or(&"").to_string())
        }
        _ => return None,
    };
    Some(Line { mac, address, step, detail })
}

fn tftp(message: &str) -> Option<Line> {
    let of = |step, file: &str, to: &str| {
        let address = to.split_whitespace().next()?.parse().ok();
        let name = file.rsplit('/').next()?;
        Some(Line { mac: None, address, step, detail: format!("{name} by TFTP") })
    };
    if let Some((file, to)) = message.strip_prefix("sent ").and_then(|m| m.rsplit_once(" to ")) {
        return of(Step::Fetched, file, to);
    }
    if let Some((file, to)) = message.strip_prefix("failed sending ").and_then(|m| m.rsplit_once(" to ")) {
        return of(Step::FetchFailed, file, to);
    }
    let (file, to) = message.strip_prefix("file ")?.split_once(" not found for ")?;
    of(Step::FetchFailed, file, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_boot() {
        let mac = Some(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        let address = Some(Ipv4Addr::new(10, 0, 0, 5));
        for (line, step, with_mac, with_address, detail) in [
            ("dnsmasq-dhcp[7]: 84732 DHCPDISCOVER(eth0) 52:54:00:12:34:56 ", Step::Asked, true, false, ""),
            (
                "dnsmasq-dhcp: 84732 DHCPACK(eth0) 10.0.0.5 52:54:00:12:34:56 node1",
                Step::Leased,
                true,
                true,
                "10.0.0.5",
            ),
            (
                "dnsmasq-dhcp[7]: 1 DHCPDISCOVER(eth0) 52:54:00:12:34:56 ignored",
                Step::Ignored,
                true,
                false,
                "no answer was given: quarantine",
            ),
            ("dnsmasq-dhcp[7]: 1 PXE(eth0) 52:54:00:12:34:56 proxy", Step::Offered, true, false, "proxy"),
            (
                "dnsmasq-tftp[7]: sent /srv/tftp/basalt.efi to 10.0.0.5",
                Step::Fetched,
                false,
                true,
                "basalt.efi by TFTP",
            ),
            (
                "dnsmasq-tftp[7]: failed sending /srv/tftp/basalt.efi to 10.0.0.5",
                Step::FetchFailed,
                false,
                true,
                "basalt.efi by TFTP",
            ),
            (
                "dnsmasq-tftp[7]: file /srv/tftp/no.cfg not found for 10.0.0.5",
                Step::FetchFailed,
                false,
                true,
                "no.cfg by TFTP",
            ),
        ] {
            let parsed = parse(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((parsed.step, parsed.detail.as_str()), (step, detail), "{line}");
            assert_eq!(parsed.mac, mac.filter(|_| with_mac), "{line}");
            assert_eq!(parsed.address, address.filter(|_| with_address), "{line}");
        }
        for other in [
            "",
            "dnsmasq[7]: started",
            "dnsmasq-dhcp[7]: 1 vendor class: PXEClient:Arch:00007",
            "dnsmasq-dhcp: x (",
            "dnsmasq-tftp[7]: sent to",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
