//! NICs and their ports.

use super::base::{Location, ResourcePath, Status};
use super::model;
use super::words::LinkStatus;

model! {
    NetworkAdapter {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        manufacturer: Option<String> = text("Manufacturer"),
        model: Option<String> = text("Model"),
        serial_number: Option<String> = text("SerialNumber"),
        part_number: Option<String> = text("PartNumber"),
        firmware_version: Option<String> = text("Controllers>0>FirmwarePackageVersion"),
        location: Location = part("Location|Controllers>0>Location"),
        status: Status = part("Status"),
        ports_path: Option<ResourcePath> = link("Ports|NetworkPorts"),
        functions_path: Option<ResourcePath> = link("NetworkDeviceFunctions"),
        /// Filled from the collection.
        ports: Vec<NetworkPort> = parts("@basalt.ports"),
    }

    NetworkPort {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        number: Option<String> = text("PortId|PhysicalPortNumber|PortNumber"),
        mac_addresses: Vec<String> = texts("Ethernet>AssociatedMACAddresses|AssociatedNetworkAddresses"),
        /// `Ethernet`, `InfiniBand`, …
        protocol: Option<String> = text("LinkNetworkTechnology|ActiveLinkTechnology|PortProtocol"),
        link: Option<LinkStatus> = word("LinkStatus"),
        speed_gbps: Option<f64> = number("CurrentSpeedGbps"),
        /// Before 2020.3.
        speed_mbps: Option<f64> = number("CurrentLinkSpeedMbps|SupportedLinkCapabilities>0>LinkSpeedMbps"),
        max_speed_gbps: Option<f64> = number("MaxSpeedGbps"),
        /// What LLDP heard on it.
        neighbour_chassis: Option<String> = text("Ethernet>LLDPReceive>ChassisId"),
        neighbour_port: Option<String> = text("Ethernet>LLDPReceive>PortId"),
        status: Status = part("Status"),
    }

    /// A NIC port as the system (or the manager) sees it.
    EthernetInterface {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        mac_address: Option<String> = text("MACAddress"),
        permanent_mac_address: Option<String> = text("PermanentMACAddress"),
        speed_mbps: Option<u64> = whole("SpeedMbps"),
        mtu_bytes: Option<u64> = whole("MTUSize"),
        link: Option<LinkStatus> = word("LinkStatus"),
        enabled: Option<bool> = flag("InterfaceEnabled"),
        host_name: Option<String> = text("HostName"),
        ipv4: Vec<Ipv4Address> = parts("IPv4Addresses"),
        ipv6: Vec<Ipv6Address> = parts("IPv6Addresses"),
        uefi_device_path: Option<String> = text("UefiDevicePath"),
        status: Status = part("Status"),
    }

    Ipv4Address {
        address: Option<String> = text("Address"),
        mask: Option<String> = text("SubnetMask"),
        gateway: Option<String> = text("Gateway"),
        /// `DHCP`, `Static`, …
        origin: Option<String> = text("AddressOrigin"),
    }

    Ipv6Address {
        address: Option<String> = text("Address"),
        prefix_bits: Option<u64> = whole("PrefixLength"),
        origin: Option<String> = text("AddressOrigin"),
    }
}

impl NetworkPort {
    /// By the newer field or the older.
    pub fn speed_bits_per_s(&self) -> Option<f64> {
        self.speed_gbps.map(|g| g * 1e9).or(self.speed_mbps.map(|m| m * 1e6))
    }
}
