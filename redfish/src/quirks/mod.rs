//! Where BMCs differ from the standard and from each other, as data: [`RULES`] says which quirk which BMC has and where that is
//! known from; the client asks for a quirk, never for a vendor.

mod identify;
mod rules;

pub use identify::{Facts, Vendor};
pub use rules::{RULES, Rule};

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// One way in which a BMC differs, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Quirk {
    /// BIOS settings stay pending for ever unless the PATCH says when to apply them; a job made besides is refused.
    BiosNeedsApplyTime,
    /// The attributes show pending BIOS values before they are in force.
    BiosShowsPendingEarly,
    /// An error that is called "not ready" passes: the request may be sent again, whatever its status was.
    NotReadyIsTransient,
    /// No AllowableValues anywhere: the usual ones are tried.
    NoAllowableValues,
    /// A boot override to HTTP is taken and has no effect: a BIOS attribute has.
    HttpBootByBiosAttribute,
    /// A boot override to HTTP works, and the address for it is a BIOS attribute.
    HttpBootUriInBios,
    /// The boot target `None` is refused: disabling the override is all that is sent.
    BootTargetNoneRefused,
    /// `If-Match: *` is refused: the resource's own ETag is sent, or none.
    IfMatchStarRefused,
    /// A PATCH without If-Match is refused.
    IfMatchRequired,
    /// ETags change between reading and writing: on 412 it is read and tried once more.
    EtagGoesStale,
    /// BootSourceOverrideMode falls back to Legacy unless it is sent every time.
    BootModeResent,
    /// BootSourceOverrideMode is not known, and refused.
    BootModeUnknown,
    /// Updates need a licence, and what is refused for it says so only in its text.
    UpdateNeedsLicence,
    /// 202 without a task: the outcome is all there is to see.
    AcceptedWithoutTask,
    /// Virtual media are inserted by PATCH, there is no action.
    MediaByPatch,
    /// Boot settings are changed in the settings resource (`/SD`), not in the system.
    BootInSettings,
    /// `$expand` is offered and answers wrongly.
    ExpandBroken,
}

/// The quirks in force with one BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quirks(BTreeSet<Quirk>);

impl Quirks {
    /// By the rules.
    pub fn of(facts: &Facts) -> Self {
        RULES.iter().filter(|rule| rule.fits(facts)).map(|rule| rule.quirk).collect()
    }

    pub fn has(&self, quirk: Quirk) -> bool {
        self.0.contains(&quirk)
    }

    pub fn iter(&self) -> impl Iterator<Item = Quirk> {
        self.0.iter().copied()
    }
}

impl FromIterator<Quirk> for Quirks {
    fn from_iter<I: IntoIterator<Item = Quirk>>(quirks: I) -> Self {
        Self(quirks.into_iter().collect())
    }
}

/// Which rules to go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QuirkChoice {
    /// What the BMC says of itself decides.
    #[default]
    Detect,
    /// These and no others.
    Exactly(Quirks),
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let debug = format!("{self:?}");
        let words = debug.chars().enumerate().flat_map(|(at, c)| {
            let gap = (c.is_ascii_uppercase() && at > 0).then_some('-');
            gap.into_iter().chain(std::iter::once(c.to_ascii_lowercase()))
        });
        f.pad(&words.collect::<String>())
    }
}
