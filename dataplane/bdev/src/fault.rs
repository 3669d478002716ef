//! fault backend.
