//! The task that keeps the hub's time and feeds its disk.

use std::sync::Arc;

use super::server::Shared;
use super::store::{CommitError, Writer};

/// Keeps time and carries batches to the writer and back, until the hub stops and everything
/// gathered is written; then the file is closed.
pub(super) async fn drive(shared: Arc<Shared>, mut writer: Option<Writer>) {
    run(&shared, writer.as_mut()).await;
    if let Some(writer) = writer {
        writer.close().await;
    }
}

async fn run(shared: &Shared, mut writer: Option<&mut Writer>) {
    let mut stop = shared.stop_signal();
    let mut stopping = false;
    let mut in_flight = false;
    let mut wakes = Vec::new();
    loop {
        let room = writer.is_some() && !in_flight;
        let (batch, until) = shared.tick(room, stopping, &mut wakes);
        if let (Some(writer), Some(batch)) = (writer.as_deref(), batch) {
            // One at a time, so there is always room; a closed channel shows as a lost result.
            in_flight = writer.batches.send(batch).await.is_ok();
        } else if stopping && !in_flight {
            return;
        }
        let result = async {
            match writer.as_deref_mut() {
                Some(writer) => writer.results.recv().await,
                None => core::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.due_early() => {}
            () = tokio::time::sleep_until(until), if !stopping => {}
            _ = stop.wait_for(|stop| *stop), if !stopping => stopping = true,
            result = result => {
                in_flight = false;
                match result {
                    Some(Ok(())) => shared.with(&mut wakes, |m, now| m.handle_written(now)),
                    Some(Err(CommitError::Full)) => {
                        tracing::warn!("the hub's disk is full; durable frames are refused");
                        shared.with(&mut wakes, |m, now| m.handle_full(now));
                        if stopping {
                            return;
                        }
                    }
                    Some(Err(CommitError::Failed(text))) => {
                        tracing::error!(%text, "the hub's store failed; the hub stops");
                        return shared.fail();
                    }
                    None => {
                        tracing::error!("the hub's store ended; the hub stops");
                        return shared.fail();
                    }
                }
            }
        }
    }
}
