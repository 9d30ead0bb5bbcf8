//! Bounds and hostile input.
