//! malloc backend.
