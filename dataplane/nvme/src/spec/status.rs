//! The status field of completions (Base 3.3.3.2.1), and what it means to an operator.

/// Status code type and code, with the "do not retry" bit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// SC in bits 7:0, SCT in 10:8, DNR in 14.
    bits: u16,
}

/// What our callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Success,
    /// This range cannot be read.
    Unreadable,
    /// A compare found other bytes.
    CompareFailed,
    /// Ended by an abort, or with its queue.
    Aborted,
    /// The controller does not know the command or a field of it.
    Unsupported,
    /// May succeed when sent again.
    Transient,
    Failed,
}

const DO_NOT_RETRY: u16 = 1 << 14;

impl Status {
    pub const SUCCESS: Status = Status { bits: 0 };

    pub const fn new(sct: u8, sc: u8) -> Status {
        Status { bits: (sct as u16 & 7) << 8 | sc as u16 }
    }
    /// From a completion's last 16 bits, phase included.
    pub fn from_cqe(field: u16) -> Status {
        Status { bits: field >> 1 & 0x47ff }
    }
    /// As a completion's last 16 bits without the phase.
    pub fn to_cqe(self) -> u16 {
        self.bits << 1
    }
    pub fn is_success(self) -> bool {
        self.bits & 0x7ff == 0
    }
    pub fn code_type(self) -> u8 {
        (self.bits >> 8 & 7) as u8
    }
    pub fn code(self) -> u8 {
        self.bits as u8
    }
    pub fn do_not_retry(self) -> bool {
        self.bits & DO_NOT_RETRY != 0
    }

    pub fn meaning(self) -> Meaning {
        match (self.code_type(), self.code()) {
            (0, 0) => Meaning::Success,
            // Invalid opcode, invalid field, invalid namespace or format.
            (0, 0x01 | 0x02 | 0x0b) => Meaning::Unsupported,
            // Aborted: on request, SQ deletion, fused partner.
            (0, 0x07..=0x0a) => Meaning::Aborted,
            // Unrecovered read; guard, application tag, reference tag check; deallocated or unwritten block.
            (2, 0x81..=0x84 | 0x87) => Meaning::Unreadable,
            (2, 0x85) => Meaning::CompareFailed,
            _ if self.do_not_retry() => Meaning::Failed,
            // Internal error, namespace not ready, format or sanitize in progress, command interrupted, path errors.
            (0, 0x04 | 0x06 | 0x1d | 0x21 | 0x82 | 0x84) | (3, _) => Meaning::Transient,
            _ => Meaning::Failed,
        }
    }

    /// What the specification calls it (Base figures 91 to 97, NVM figure 16).
    pub fn words(self) -> &'static str {
        match (self.code_type(), self.code()) {
            (0, 0x00) => "success",
            (0, 0x01) => "the controller does not know this command",
            (0, 0x02) => "the controller refuses a field of the command",
            (0, 0x03) => "command id in use",
            (0, 0x04) => "data transfer error",
            (0, 0x05) => "aborted because power is about to be lost",
            (0, 0x06) => "internal error of the drive",
            (0, 0x07) => "aborted on request",
            (0, 0x08) => "aborted because its queue was deleted",
            (0, 0x09 | 0x0a) => "aborted with the other half of a fused pair",
            (0, 0x0b) => "no such namespace, or of a wrong format",
            (0, 0x0c) => "commands out of order",
            (0, 0x1c) => "sanitize failed; sanitize again before use",
            (0, 0x1d) => "a sanitize is under way; wait for its end",
            (0, 0x20) => "the namespace is write-protected",
            (0, 0x21) => "command interrupted; send it again",
            (0, 0x80) => "beyond the end of the namespace",
            (0, 0x81) => "capacity exceeded",
            (0, 0x82) => "namespace not ready",
            (0, 0x83) => "reserved by another host",
            (0, 0x84) => "a format is under way; wait for its end",
            (1, 0x00) => "no such completion queue",
            (1, 0x01) => "bad queue identifier",
            (1, 0x02) => "bad queue size",
            (1, 0x03) => "too many aborts at a time",
            (1, 0x05) => "too many event requests at a time",
            (1, 0x06) => "bad firmware slot",
            (1, 0x07) => "bad firmware image",
            (1, 0x0a) => "the namespace cannot be formatted so",
            (1, 0x0b) => "the new firmware needs a conventional reset",
            (1, 0x10) => "the new firmware needs a reset of the NVM subsystem",
            (1, 0x11) => "the new firmware needs a controller reset",
            (1, 0x13) => "this firmware may not be activated",
            (1, 0x14) => "firmware pieces overlap",
            (1, 0x80) => "conflicting attributes",
            (1, 0x81) => "protection information refused",
            (1, 0x82) => "write to a read-only range",
            (2, 0x80) => "write fault",
            (2, 0x81) => "unrecovered read error",
            (2, 0x82) => "guard check failed",
            (2, 0x83) => "application tag check failed",
            (2, 0x84) => "reference tag check failed",
            (2, 0x85) => "compare found other bytes",
            (2, 0x86) => "access denied",
            (2, 0x87) => "deallocated or never written",
            (3, _) => "path error",
            (7, _) => "an error of the vendor's own",
            _ => "an error without a name here",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (status type {:x}h, code {:02x}h)", self.words(), self.code_type(), self.code())
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_wire() {
        let status = Status::from_cqe(0x4281 << 1 | 1);
        assert!(status.do_not_retry() && !status.is_success());
        assert_eq!((status.code_type(), status.code()), (2, 0x81));
        assert_eq!(status.meaning(), Meaning::Unreadable);
        assert_eq!(Status::from_cqe(1), Status::SUCCESS);
        assert_eq!(Status::from_cqe(Status::new(2, 0x85).to_cqe()).meaning(), Meaning::CompareFailed);
        assert_eq!(Status::new(0, 0x06).meaning(), Meaning::Transient);
        assert_eq!(Status::new(0, 0x07).to_string(), "aborted on request (status type 0h, code 07h)");
    }
}
