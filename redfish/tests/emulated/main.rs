//! The client against emulated BMCs.

mod bad_input;
mod common;
mod faults;
mod fuzz;
mod operations;
mod quirks;
mod trees;
