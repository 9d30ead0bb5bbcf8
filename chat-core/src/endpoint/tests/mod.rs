//! The endpoint as a whole, with real keys: what it promises its driver, and what strangers
//! cannot do to it.

mod company;
mod groups;
mod hostile;
mod limits;
mod net;
mod own;
mod promises;
