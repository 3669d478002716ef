//! The table.

use super::{Facts, Quirk, Vendor};

/// One quirk of one kind of BMC.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub quirk: Quirk,
    pub vendor: Vendor,
    /// A part of the product's or the system's name, in lower case; empty: all of the vendor.
    pub only: &'static [&'static str],
    /// Where it is known from.
    pub source: &'static str,
}

impl Rule {
    pub fn fits(&self, facts: &Facts) -> bool {
        let named = |part: &&str| facts.product.contains(*part) || facts.system_model.contains(*part);
        self.vendor == facts.vendor && (self.only.is_empty() || self.only.iter().any(named))
    }
}

const fn rule(vendor: Vendor, only: &'static [&'static str], quirk: Quirk, source: &'static str) -> Rule {
    Rule { quirk, vendor, only, source }
}

/// Every rule, by vendor.
pub const RULES: &[Rule] = &[
    rule(
        Vendor::Dell,
        &[],
        Quirk::BiosNeedsApplyTime,
        "redhat-performance/quads issue 726: a PATCH with OnReset makes the job, a second POST gets 400",
    ),
    rule(Vendor::Dell, &[], Quirk::BiosShowsPendingEarly, "NVIDIA/libredfish pull request 25"),
    rule(Vendor::Dell, &[], Quirk::NotReadyIsTransient, "redhat-performance/badfish issue 129: SWC0700"),
    rule(
        Vendor::Dell,
        &["idrac 10", "idrac10", "17g"],
        Quirk::NoAllowableValues,
        "iDRAC10 release notes: AllowableValues moved to schemas",
    ),
    rule(
        Vendor::Dell,
        &[],
        Quirk::HttpBootUriInBios,
        "NVIDIA/libredfish pull request 75: no HttpBootUri; HttpDev1Uri. bmclib pull request 470: HttpDev1TlsMode",
    ),
    rule(
        Vendor::Hpe,
        &["ilo 6", "ilo6", "gen11"],
        Quirk::HttpBootByBiosAttribute,
        "NVIDIA/libredfish pull request 76: no override works on iLO 6; UrlBootFile does",
    ),
    rule(Vendor::Hpe, &[], Quirk::BootTargetNoneRefused, "NVIDIA/libredfish pull request 76"),
    rule(Vendor::Hpe, &[], Quirk::IfMatchStarRefused, "NVIDIA/libredfish pull request 76"),
    rule(
        Vendor::Lenovo,
        &[],
        Quirk::EtagGoesStale,
        "ansible-collections/community.general issue 11261: 412 with an ETag that was just read",
    ),
    rule(
        Vendor::Lenovo,
        &[],
        Quirk::MediaByPatch,
        "Lenovo XCC REST API guide, \"Update virtual media\": PATCH with Image",
    ),
    rule(Vendor::Supermicro, &[], Quirk::BootModeResent, "DMTF/Redfishtool issue 106"),
    rule(Vendor::Supermicro, &["x10"], Quirk::BootModeUnknown, "DMTF/Redfishtool issue 106: absent on X10"),
    rule(
        Vendor::Supermicro,
        &[],
        Quirk::UpdateNeedsLicence,
        "Supermicro Redfish reference guide: SFT-OOB-LIC or SFT-DCMS-SINGLE for updates",
    ),
    rule(
        Vendor::Supermicro,
        &[],
        Quirk::AcceptedWithoutTask,
        "Supermicro answers 202 without a task monitor",
    ),
    rule(
        Vendor::Ami,
        &[],
        Quirk::IfMatchRequired,
        "stmcginnis/gofish issue 171: Ami.1.0.PreconditionHeaderMissing",
    ),
    rule(
        Vendor::Ami,
        &[],
        Quirk::BootInSettings,
        "MegaRAC: PATCH of Boot goes to /redfish/v1/Systems/Self/SD",
    ),
    rule(
        Vendor::OpenBmc,
        &[],
        Quirk::ExpandBroken,
        "openbmc/bmcweb: $expand is experimental and off by default (meson option insecure-enable-redfish-query)",
    ),
];
