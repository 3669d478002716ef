//! The index over a store in memory: against a model with crashes, and case by case.

mod cases;
mod memory;
mod model;
mod real;
