//! Where a BMC differs from the standard. Each is known of real ones; the sources stand beside the client's rules.

/// One way to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deviation {
    /// BIOS settings that come without an apply time stay pending for ever; POSTing a job for them is refused.
    BiosJobOnlyWithApplyTime,
    /// Pending BIOS values show among those in force.
    PendingShownEarly,
    /// Every second change is refused as "not ready", with status 500.
    NotReadyAtFirst,
    /// No AllowableValues.
    NoAllowableValues,
    /// A boot override to UefiHttp is taken and forgotten; the BIOS attribute UrlBootFile works.
    HttpOverrideWithoutEffect,
    /// HttpBootUri is not known; the BIOS attribute HttpDev1Uri is the address that a boot from HTTP uses.
    HttpUriInBios,
    /// ETags are shown as weak ones, and no weak one fits.
    WeakTags,
    /// The boot target None is refused.
    NoneTargetRefused,
    /// `If-Match: *` is refused, and so is a PATCH of accounts without If-Match.
    StarTagRefused,
    /// The first PATCH with an ETag is refused with 412, though the tag was right.
    TagRefusedOnce,
    /// Virtual media have no actions, and take PATCH.
    MediaByPatch,
    /// A boot override without a mode sets the mode to Legacy.
    ModeFallsToLegacy,
    /// The boot mode is not known.
    ModeUnknown,
    /// Updates are refused for want of a licence.
    UpdatesNeedLicence,
    /// Updates are answered 202 without a task.
    NoTask,
    /// A PATCH without the resource's own tag is refused.
    TagMandatory,
    /// Boot settings are refused by the system and taken by its settings resource `/SD`.
    BootInSettings,
    /// `$expand` gives members without most of their properties.
    ExpandWrong,
    /// The override is always Continuous, whatever was asked for.
    AlwaysContinuous,
}
