//! Redfish's enumerations. A word that is not in the list is kept as it is: newer services have more.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($word:ident = $text:literal),* $(,)? })*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($word,)*
            Other(String),
        }

        impl $name {
            /// All that have a name of their own.
            pub const ALL: &[Self] = &[$(Self::$word),*];

            /// Redfish's spelling.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$word => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            /// Case makes no difference: some BMCs write `on`.
            fn from(text: &str) -> Self {
                match text {
                    $(text if text.eq_ignore_ascii_case($text) => Self::$word,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )* };
}

words! {
    Health { Ok = "OK", Warning = "Warning", Critical = "Critical" }
    State {
        Enabled = "Enabled", Disabled = "Disabled", Absent = "Absent", StandbyOffline = "StandbyOffline",
        StandbySpare = "StandbySpare", InTest = "InTest", Starting = "Starting", UnavailableOffline = "UnavailableOffline",
        Deferring = "Deferring", Quiesced = "Quiesced", Updating = "Updating", Qualified = "Qualified", Degraded = "Degraded",
    }
    PowerState {
        On = "On", Off = "Off", PoweringOn = "PoweringOn", PoweringOff = "PoweringOff", Paused = "Paused",
    }
    ResetType {
        On = "On", ForceOff = "ForceOff", GracefulShutdown = "GracefulShutdown", GracefulRestart = "GracefulRestart",
        ForceRestart = "ForceRestart", Nmi = "Nmi", ForceOn = "ForceOn", PushPowerButton = "PushPowerButton",
        PowerCycle = "PowerCycle", FullPowerCycle = "FullPowerCycle",
    }
    BootTarget {
        None = "None", Pxe = "Pxe", UefiHttp = "UefiHttp", Hdd = "Hdd", Cd = "Cd", Usb = "Usb", BiosSetup = "BiosSetup",
        UefiTarget = "UefiTarget", UefiBootNext = "UefiBootNext", UefiShell = "UefiShell", Diags = "Diags",
        Utilities = "Utilities", SdCard = "SDCard", Floppy = "Floppy", RemoteDrive = "RemoteDrive", Recovery = "Recovery",
    }
    OverrideEnabled { Disabled = "Disabled", Once = "Once", Continuous = "Continuous" }
    BootMode { Uefi = "UEFI", Legacy = "Legacy" }
    IndicatorLed { Off = "Off", Lit = "Lit", Blinking = "Blinking" }
    LinkStatus { LinkUp = "LinkUp", LinkDown = "LinkDown", NoLink = "NoLink", Up = "Up", Down = "Down" }
    MediaType { Cd = "CD", Dvd = "DVD", Floppy = "Floppy", UsbStick = "USBStick" }
    /// What a drive speaks.
    Protocol { Nvme = "NVMe", Sas = "SAS", Sata = "SATA", Pcie = "PCIe", Usb = "USB", FibreChannel = "FC" }
    TaskState {
        New = "New", Starting = "Starting", Running = "Running", Suspended = "Suspended", Interrupted = "Interrupted",
        Pending = "Pending", Stopping = "Stopping", Completed = "Completed", Killed = "Killed", Exception = "Exception",
        Service = "Service", Cancelling = "Cancelling", Cancelled = "Cancelled",
    }
    TransferProtocol { Http = "HTTP", Https = "HTTPS", Nfs = "NFS", Cifs = "CIFS", Tftp = "TFTP", Scp = "SCP", Ftp = "FTP" }
}

impl TaskState {
    /// Nothing more will happen to it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::Killed | Self::Exception | Self::Cancelled)
    }
}

impl LinkStatus {
    pub fn is_up(&self) -> bool {
        matches!(self, Self::LinkUp | Self::Up)
    }
}

impl PowerState {
    pub fn is_on(&self) -> bool {
        *self == Self::On
    }
}
