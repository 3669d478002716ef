//! Three servers with their BMCs, and a management station that does not know them yet.

use crate::basalt::Station;
use crate::bmc::{Bmc, PORT, USER};
use crate::domain::{Domain, Firmware};
use crate::world::World;

pub(crate) struct Rack {
    // In this order: what a BMC drives ends after it.
    pub(crate) bmcs: Vec<Bmc>,
    pub(crate) servers: Vec<Domain>,
    pub(crate) station: Station,
    pub(crate) number: u8,
}

impl Rack {
    pub(crate) fn new(world: &World, number: u8, firmware: &[Firmware]) -> Result<Rack, String> {
        let station = Station::new(world, &format!("r{number}"))?;
        let mut rack = Rack { bmcs: Vec::new(), servers: Vec::new(), station, number };
        for (unit, firmware) in (1..).zip(firmware) {
            let server = Domain::define(world, number, unit, *firmware)?;
            rack.bmcs.push(Bmc::start(world, &server, &format!("10.98.{number}.{}", 10 + unit))?);
            rack.servers.push(server);
        }
        rack.bmcs.iter().try_for_each(Bmc::wait_until_up)?;
        Ok(rack)
    }

    /// Where BMCs are, and what else may be there.
    pub(crate) fn range(&self) -> String {
        format!("10.98.{}.0/26", self.number)
    }

    /// Into the list, all of them.
    pub(crate) fn add(&self) -> Result<(), String> {
        for (server, bmc) in self.servers.iter().zip(&self.bmcs) {
            let mut add = vec!["add", &server.name, "--bmc"];
            let url = bmc.url();
            add.extend([url.as_str(), "--user", USER, "--accept-certificate"]);
            if server.firmware == Firmware::Bios {
                add.extend(["--via", "bios-pxe"]);
            }
            self.station.node(&add)?;
        }
        Ok(())
    }

    pub(crate) fn port() -> String {
        PORT.to_string()
    }
}
