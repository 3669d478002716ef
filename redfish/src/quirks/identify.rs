//! Who made a BMC, from what it says of itself.

use crate::model::{Manager, Service, System};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    Dell,
    Hpe,
    Lenovo,
    Supermicro,
    Ami,
    OpenBmc,
    Unknown,
}

/// What the rules go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub vendor: Vendor,
    /// The root's product and the manager's model, lower case: `idrac`, `ilo 6`, …
    pub product: String,
    /// The system's model, lower case: Supermicro's generations show there (`x10…`).
    pub system_model: String,
}

impl Facts {
    /// The manager's firmware decides before the server's maker: many makers sell servers with AMI's or OpenBMC.
    pub fn of(service: &Service, oem: &[String], manager: Option<&Manager>, system: Option<&System>) -> Self {
        let lower = |text: Option<&String>| text.map(|t| t.to_ascii_lowercase()).unwrap_or_default();
        let product = [
            lower(service.product.as_ref()),
            lower(manager.and_then(|m| m.model.as_ref())),
            lower(manager.and_then(|m| m.name.as_ref())),
        ]
        .join(" ");
        let system_model = lower(system.and_then(|s| s.model.as_ref()));
        let names = [
            lower(service.vendor.as_ref()),
            oem.join(" ").to_ascii_lowercase(),
            lower(system.and_then(|s| s.manufacturer.as_ref())),
        ];
        Self { vendor: vendor(&names, &product), product, system_model }
    }
}

fn vendor(names: &[String], product: &str) -> Vendor {
    let products: &[(&str, Vendor)] = &[
        ("idrac", Vendor::Dell),
        ("integrated dell remote", Vendor::Dell),
        ("ilo", Vendor::Hpe),
        ("integrated lights-out", Vendor::Hpe),
        ("xclarity", Vendor::Lenovo),
        ("openbmc", Vendor::OpenBmc),
        ("megarac", Vendor::Ami),
        // Sold under other names too, such as Lenovo's ThinkSystem SR655.
        ("ami redfish server", Vendor::Ami),
    ];
    let makers: &[(&str, Vendor)] = &[
        ("dell", Vendor::Dell),
        ("hpe", Vendor::Hpe),
        ("hewlett", Vendor::Hpe),
        ("lenovo", Vendor::Lenovo),
        ("supermicro", Vendor::Supermicro),
        ("super micro", Vendor::Supermicro),
        ("smci", Vendor::Supermicro),
        ("ami", Vendor::Ami),
        ("american megatrends", Vendor::Ami),
        ("openbmc", Vendor::OpenBmc),
    ];
    let whole_word = |text: &str, word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let edge = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
            edge(text[..at].chars().next_back())
                && (word.len() > 3 || edge(text[at + word.len()..].chars().next()))
        })
    };
    let by_product = products.iter().find(|(word, _)| whole_word(product, word));
    let by_maker = || names.iter().find_map(|name| makers.iter().find(|(word, _)| whole_word(name, word)));
    by_product.or_else(by_maker).map_or(Vendor::Unknown, |(_, vendor)| *vendor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(vendor: &str, product: &str, oem: &str, maker: &str) -> Facts {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let service = Service { vendor: some(vendor), product: some(product), ..Service::default() };
        let system = System { manufacturer: some(maker), ..System::default() };
        Facts::of(&service, &[oem.to_owned()], None, Some(&system))
    }

    #[test]
    fn makers_are_told_by_what_they_say() {
        for (vendor, product, oem, maker, expected) in [
            ("Dell", "Integrated Dell Remote Access Controller", "Dell", "Dell Inc.", Vendor::Dell),
            ("HPE", "ProLiant DL380 Gen11", "Hpe", "HPE", Vendor::Hpe),
            ("", "", "Hp", "Hewlett Packard Enterprise", Vendor::Hpe),
            ("Lenovo", "", "Lenovo", "Lenovo", Vendor::Lenovo),
            ("", "", "Supermicro", "Supermicro", Vendor::Supermicro),
            ("SMCI", "", "", "", Vendor::Supermicro),
            ("Lenovo", "AMI Redfish Server", "Ami", "Lenovo", Vendor::Ami),
            ("AMI", "AMI Redfish Server", "Ami", "GIGABYTE", Vendor::Ami),
            ("", "OpenBMC", "", "Quanta", Vendor::OpenBmc),
            ("", "", "", "Amiga", Vendor::Unknown),
            ("", "Pilot", "", "Contoso", Vendor::Unknown),
        ] {
            assert_eq!(
                facts(vendor, product, oem, maker).vendor,
                expected,
                "{vendor} {product} {oem} {maker}"
            );
        }
    }
}
