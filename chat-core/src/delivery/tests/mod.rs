//! Tests of the delivery machine: rules one by one, then everything at once on a small network.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::Fate;
use crate::channel::Channel;
use crate::content::Content;
use crate::effect::{Carried, Effect, Outgoing, RowOp};
use crate::id::{DeviceId, MessageId};
use crate::sealer::Plain;
use crate::time::UnixMillis;
use crate::wire::Body;

mod causal;
mod chaos;
mod expiry;
mod members;
mod net;
mod receiving;
mod restarts;
mod rhythm;
mod sending;
mod short;
mod slow;
mod wedge;
