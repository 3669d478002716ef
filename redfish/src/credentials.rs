//! Who we are to a BMC.

use basalt_trust::Secret;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: Secret,
}

impl Credentials {
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Secret::new(password) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_never_printed() {
        let credentials = Credentials::new("root", "hunter2");
        assert_eq!(format!("{credentials:?}"), "Credentials { user: \"root\", password: *** }");
    }
}
