//! Clients for emulators.

use basalt_redfish::model::{ResourcePath, System};
use basalt_redfish::{Auth, Bmc, Client, Connection, Credentials, Limits, QuirkChoice, Quirks, Trust};
use basalt_redfish_emulator::{Deviation, Emulator, Options, Tree};
use std::time::Duration;

/// Short pauses.
pub(crate) fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(10),
        request: Duration::from_secs(10),
        attempts: 3,
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        ..Limits::default()
    }
}

pub(crate) fn connection(emulator: &Emulator) -> Connection {
    let options = Options::default();
    let credentials = Credentials::new(options.user, options.password);
    Connection {
        port: emulator.port(),
        limits: limits(),
        ..Connection::new("127.0.0.1", credentials, Trust::Plaintext)
    }
}

pub(crate) fn client(emulator: &Emulator) -> Client {
    Client::new(connection(emulator)).unwrap()
}

pub(crate) fn without_rules(emulator: &Emulator) -> Client {
    let quirks = QuirkChoice::Exactly(Quirks::default());
    Client::new(Connection { quirks, ..connection(emulator) }).unwrap()
}

pub(crate) fn basic(emulator: &Emulator) -> Client {
    Client::new(Connection { auth: Auth::Basic, ..connection(emulator) }).unwrap()
}

pub(crate) async fn with(tree: Tree, deviations: impl IntoIterator<Item = Deviation>) -> Emulator {
    let deviations = deviations.into_iter().collect();
    Emulator::start_with(tree, Options { deviations, ..Options::default() }).await
}

pub(crate) async fn system(client: &Client) -> System {
    client.systems().await.unwrap().remove(0)
}

pub(crate) async fn system_path(client: &Client) -> ResourcePath {
    system(client).await.path
}
