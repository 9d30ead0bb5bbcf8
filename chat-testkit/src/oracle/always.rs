//! What holds for every endpoint at every moment: memory stays under its bounds.
//! (Bounded output per input and the progress of timers are judged by the world as it drives.)

use chat_core::config::Config;

use super::{Verdict, View, Violation};

/// See the module.
#[derive(Debug)]
pub struct Always {
    max_outbox: u64,
}

impl Always {
    /// For endpoints with this configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            max_outbox: config.delivery.max_outbox as u64,
        }
    }

    /// Judges all nodes at one moment.
    ///
    /// # Errors
    /// The first that exceeds a bound.
    pub fn probe(&self, nodes: &[View<'_>]) -> Verdict {
        for node in nodes {
            let Some(endpoint) = node.endpoint else {
                continue;
            };
            self.outbox(node.at.node, endpoint.stats().outbox)?;
        }
        Ok(())
    }

    /// Judges the size of one outbox.
    ///
    /// # Errors
    /// When it exceeds its bound.
    pub fn outbox(&self, node: usize, held: u64) -> Verdict {
        if held > self.max_outbox {
            return Err(Violation::new(
                "IG11",
                format!(
                    "node {node} holds {held} messages, the bound is {}",
                    self.max_outbox
                ),
            ));
        }
        Ok(())
    }
}
