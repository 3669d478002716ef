//! How a controller is reached: its registers, its view of our memory, its interrupts. VFIO is one way, the mock another.

use crate::dma::DmaSpace;
use crate::queue::DoorbellRegister;
use basalt_reactor::event::EventFd;
use std::sync::Arc;

pub trait Transport: Send + Sync + 'static {
    /// PCI address, or what stands for one.
    fn name(&self) -> &str;
    fn read32(&self, offset: u32) -> u32;
    fn read64(&self, offset: u32) -> u64;
    fn write32(&self, offset: u32, value: u32);
    fn write64(&self, offset: u32, value: u64);
    /// `None` beyond the end of the registers.
    fn doorbell(&self, offset: u32) -> Option<DoorbellRegister>;
    fn dma(&self) -> &dyn DmaSpace;

    /// The event that an MSI-X vector rings; `None`: no such vector, look for completions instead.
    fn event(&self, vector: u16) -> Option<Arc<EventFd>>;
    /// Keeps a vector from ringing, or lets it ring again, with what came meanwhile; false where that cannot be done.
    fn mask(&self, vector: u16, masked: bool) -> bool;

    /// Resets the function by the bus, when the controller's own reset does not end.
    fn reset_function(&self) -> Result<(), String>;
    /// From now on the device can neither read nor write memory.
    fn isolate(&self);
    /// The bus says that the device has left or is being taken away. Cheap while the controller is ready.
    fn departed(&self) -> bool;

    /// While something is waited for without other work.
    fn relax(&self) {
        std::hint::spin_loop();
    }
}
