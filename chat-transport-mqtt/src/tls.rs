//! TLS by rustls with ring: the roots of the system or given ones, and a certificate of our own.

#[cfg(feature = "tls")]
pub(crate) use with::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use without::Tls;

#[cfg(not(feature = "tls"))]
mod without {
    use std::io;

    use crate::dial::Carrier;

    #[derive(Clone, Debug, Default)]
    pub(crate) struct Tls {}

    impl Tls {
        pub(crate) async fn wrap(&self, _host: &str, _carrier: Carrier) -> io::Result<Carrier> {
            unreachable!("such an address is refused without the feature")
        }
    }
}

#[cfg(feature = "tls")]
mod with {
    use core::fmt;
    use std::io;
    use std::sync::{Arc, OnceLock};

    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use crate::MqttConfigError;
    use crate::dial::Carrier;

    #[derive(Clone, Default)]
    pub(crate) struct Tls {
        /// `None`: those of the system.
        roots: Option<RootCertStore>,
        identity: Option<(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)>,
        /// Made at the first connection: the roots of the system are read from disk.
        config: OnceLock<Arc<ClientConfig>>,
    }

    impl fmt::Debug for Tls {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            // The key is a secret.
            f.write_str("Tls")
        }
    }

    fn unusable(why: impl fmt::Display) -> MqttConfigError {
        MqttConfigError::Certificate {
            why: why.to_string(),
        }
    }

    fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, MqttConfigError> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let all = all.map_err(unusable)?;
        if all.is_empty() {
            return Err(unusable("there is none in the PEM text"));
        }
        Ok(all)
    }

    impl Tls {
        pub(crate) fn set_roots(&mut self, pem: &[u8]) -> Result<(), MqttConfigError> {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(unusable)?;
            }
            self.roots = Some(roots);
            self.config = OnceLock::new();
            Ok(())
        }

        pub(crate) fn set_identity(
            &mut self,
            chain: &[u8],
            key: &[u8],
        ) -> Result<(), MqttConfigError> {
            let chain = certificates(chain)?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(unusable)?;
            self.identity = Some((chain, Arc::new(key)));
            self.config = OnceLock::new();
            // Whether they belong together, now and not at the first connection.
            build(RootCertStore::empty(), self.identity.as_ref()).map_err(unusable)?;
            Ok(())
        }

        pub(crate) async fn wrap(&self, host: &str, carrier: Carrier) -> io::Result<Carrier> {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let connector = TlsConnector::from(self.config()?);
            Ok(Box::new(connector.connect(name, carrier).await?))
        }

        fn config(&self) -> io::Result<Arc<ClientConfig>> {
            if let Some(config) = self.config.get() {
                return Ok(config.clone());
            }
            let roots = match &self.roots {
                Some(roots) => roots.clone(),
                None => system_roots()?,
            };
            let config = build(roots, self.identity.as_ref()).map_err(io::Error::other)?;
            Ok(self.config.get_or_init(|| Arc::new(config)).clone())
        }
    }

    fn system_roots() -> io::Result<RootCertStore> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // Some systems carry certificates that no verifier takes.
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let text =
                "this system has no root certificates; install them or give `.tls_roots(..)`";
            return Err(io::Error::other(text));
        }
        Ok(roots)
    }

    fn build(
        roots: RootCertStore,
        identity: Option<&(Vec<CertificateDer<'static>>, Arc<PrivateKeyDer<'static>>)>,
    ) -> Result<ClientConfig, tokio_rustls::rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        match identity {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key()),
        }
    }
}
