//! The examples for one's own transport and store keep their promises: the suites run over them.

#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../examples/custom_store.rs"]
pub mod custom_store;
#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../examples/custom_transport.rs"]
pub mod custom_transport;

mod transport {
    use std::net::SocketAddr;

    use chat_testkit::suite::client::{Cell, ClientWorld, run};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::custom_transport::{LineConnector, serve};

    #[derive(Debug)]
    struct Lines {
        address: SocketAddr,
        broker: JoinHandle<std::io::Result<()>>,
    }

    impl Lines {
        async fn listen(address: SocketAddr) -> Self {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            Self {
                address: listener.local_addr().expect("it is bound"),
                broker: tokio::spawn(serve(listener)),
            }
        }
    }

    impl Cell for Lines {
        const VIRTUAL_TIME: bool = false;

        type Connector = LineConnector;

        async fn start() -> Self {
            Self::listen(([127, 0, 0, 1], 0).into()).await
        }

        fn connector(&self) -> LineConnector {
            LineConnector {
                broker: self.address,
            }
        }

        async fn restart(&mut self) {
            self.broker.abort();
            // The port is free when the task is gone.
            (&mut self.broker).await.ok();
            *self = Self::listen(self.address).await;
        }
    }

    chat_testkit::conformance!(real: ClientWorld<Lines>, run);
}

mod store {
    use chat_client::store::StoreError;
    use tempfile::TempDir;

    use super::custom_store::JournalStore;

    struct Place(TempDir);

    impl chat_client::store::suite::Place for Place {
        type Store = JournalStore;

        fn new() -> Self {
            Self(TempDir::new().expect("a temporary folder"))
        }

        async fn open(&self) -> Result<JournalStore, StoreError> {
            JournalStore::open(self.0.path().join("journal"))
        }
    }

    chat_client::store_suite!(Place);

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("journal");
        std::fs::write(&path, "[[1,[109],[50]]]\n[[1,[109],").expect("it is written");
        drop(JournalStore::open(&path).expect("the whole part is readable"));
        let kept = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(kept, "[[1,[109],[50]]]\n");
    }
}
