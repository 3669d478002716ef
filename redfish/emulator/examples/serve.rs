//! An emulated BMC on a port, to be looked at with any client: `serve [VENDOR] [PORT]`.

use basalt_redfish_emulator::{Emulator, Options, vendors};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let vendor = arguments.next().unwrap_or_else(|| "plain".to_owned());
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let (tree, deviations) = match vendor.as_str() {
        "plain" => (vendors::plain(1), Vec::new()),
        "dell" => vendors::dell(1),
        "hpe" => vendors::hpe(1),
        "lenovo" => vendors::lenovo(1),
        "supermicro" => vendors::supermicro(1),
        "ami" => vendors::ami(1),
        "openbmc" => vendors::openbmc(1),
        other => {
            eprintln!("no vendor '{other}'; there are plain, dell, hpe, lenovo, supermicro, ami, openbmc");
            std::process::exit(2);
        }
    };
    let listener = match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("port {port}: {error}; choose another");
            std::process::exit(1);
        }
    };
    let options = Options { deviations: deviations.into_iter().collect(), ..Options::default() };
    let (user, password) = (options.user.clone(), options.password.clone());
    let emulator = Emulator::start_on(listener, tree, options);
    println!("http://{}/redfish/v1/ as {user} with {password}", emulator.address());
    std::future::pending::<()>().await;
}
