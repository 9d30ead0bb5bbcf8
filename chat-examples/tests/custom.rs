//! The examples for one's own transport and store keep their promises: the suites run over them.

#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../examples/custom_store.rs"]
pub mod custom_store;
#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../examples/custom_transport.rs"]
pub mod custom_transport;

/// The broker at the other end of a pipe in memory instead of a TCP connection, so that time can be
/// virtual and no scenario depends on how busy the machine is.
mod transport {
    use std::sync::{Arc, Mutex};

    use chat_client::transport::{
        Capabilities, ConnectOptions, Connector, Transport, TransportError,
    };
    use chat_testkit::suite::client::{Cell, ClientWorld, run_paused};
    use tokio::io::duplex;
    use tokio::task::JoinSet;

    use super::custom_transport::{CAPABILITIES, Devices, open, session};

    /// Less than a frame, so that reading and writing have to wait for each other.
    const PIPE: usize = 4 * 1024;

    #[derive(Clone, Debug, Default)]
    struct Lines {
        devices: Devices,
        sessions: Arc<Mutex<JoinSet<std::io::Result<()>>>>,
    }

    #[async_trait::async_trait]
    impl Connector for Lines {
        fn capabilities(&self) -> &'static Capabilities {
            &CAPABILITIES
        }

        async fn connect(
            &self,
            options: ConnectOptions,
        ) -> Result<Box<dyn Transport>, TransportError> {
            let (near, far) = duplex(PIPE);
            let served = session(far, self.devices.clone());
            self.sessions.lock().expect("no panic").spawn(served);
            open(near, &options).await
        }
    }

    impl Cell for Lines {
        const VIRTUAL_TIME: bool = true;

        type Connector = Self;

        async fn start() -> Self {
            Self::default()
        }

        fn connector(&self) -> Self {
            self.clone()
        }

        async fn restart(&mut self) {
            self.sessions.lock().expect("no panic").abort_all();
        }
    }

    chat_testkit::conformance!(virtual: ClientWorld<Lines>, run_paused);
}

#[test]
fn the_example_says_hello_over_tcp() {
    custom_transport::main().expect("nothing stands in the way");
}

mod store {
    use chat_client::store::StoreError;
    use tempfile::TempDir;

    use super::custom_store::{JournalStore, run};

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

    #[tokio::test]
    async fn the_example_finds_what_it_kept() {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("journal");
        for before in 0..3 {
            let found = run(&path).await.expect("nothing stands in the way");
            assert_eq!(found, before);
        }
    }

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
