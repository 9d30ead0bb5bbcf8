//! What must not be on the wire is refused by the builder of samples, which every kind goes
//! through: maps (they allocate from a claimed length), units, empty structs and recursion.

use std::collections::BTreeMap;

use chat_core::wire::BoundedVec;
use serde::Deserialize;

use crate::fill::{Fixed, build};

#[test]
#[should_panic(expected = "a map, unit, float")]
fn a_map_is_refused() {
    build::<BTreeMap<u8, u8>>(&mut Fixed::default());
}

#[test]
#[should_panic(expected = "a map, unit, float")]
fn a_unit_is_refused() {
    #[derive(Deserialize)]
    struct Unit;
    let Unit = build::<Unit>(&mut Fixed::default());
}

#[test]
#[should_panic(expected = "an empty type")]
fn a_struct_without_fields_is_refused() {
    #[derive(Deserialize)]
    struct Empty {}
    let Empty {} = build::<Empty>(&mut Fixed::default());
}

#[test]
#[should_panic(expected = "a recursive type")]
fn a_recursive_type_is_refused() {
    #[derive(Deserialize)]
    struct Tree {
        branches: BoundedVec<Self, 2>,
    }
    let Tree { branches } = build::<Tree>(&mut Fixed::default());
    assert!(branches.is_empty(), "never reached");
}
