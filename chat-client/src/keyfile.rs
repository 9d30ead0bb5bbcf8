//! Keeps a device key in a file that only its owner can read.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;

use chat_core::identity::DeviceKey;

/// Why a key could not be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("the key file cannot be used: {0}")]
    Io(#[from] std::io::Error),
    /// It holds something else than a key.
    #[error("the key file does not hold 32 bytes; restore it, or move it away for a new device")]
    Malformed,
    /// Others can read it.
    #[error(
        "the key file can be read by others (mode {mode:o}); make it 0600, or better a new key"
    )]
    Exposed {
        /// Its permissions.
        mode: u32,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Entropy(String),
}

/// A new key from the randomness of the operating system.
///
/// # Errors
/// [`KeyFileError::Entropy`].
pub fn generate() -> Result<DeviceKey, KeyFileError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|e| KeyFileError::Entropy(e.to_string()))?;
    Ok(DeviceKey::from_secret(secret))
}

/// The key in the file at `path`; makes a new one there when there is no file. The file is synced
/// before this returns, and readable by its owner only.
///
/// # Errors
/// [`KeyFileError`]; a file that is there is never overwritten.
pub fn load_or_create(path: impl AsRef<Path>) -> Result<DeviceKey, KeyFileError> {
    let path = path.as_ref();
    match load(path) {
        Err(KeyFileError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
        loaded => return loaded,
    }
    let key = generate()?;
    // Written beside and renamed without replacing, so that a crash leaves no half a key and of
    // two processes that start at once both use the same.
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    write(&draft, &key.to_secret())?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => load(path),
        Err(error) => Err(error.into()),
    }
}

/// The key in the file at `path`.
///
/// # Errors
/// [`KeyFileError`].
pub fn load(path: impl AsRef<Path>) -> Result<DeviceKey, KeyFileError> {
    let file = OpenOptions::new().read(true).open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed { mode });
        }
    }
    let mut bytes = Vec::new();
    file.take(33).read_to_end(&mut bytes)?;
    let secret = bytes.try_into().map_err(|_| KeyFileError::Malformed)?;
    Ok(DeviceKey::from_secret(secret))
}

fn write(path: &Path, secret: &[u8]) -> Result<(), KeyFileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(secret)?;
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        let first = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().device(), first.device());
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1, "no draft is left");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        load_or_create(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let refused = load_or_create(&path).unwrap_err();
        assert!(matches!(refused, KeyFileError::Exposed { mode: 0o644 }));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.key");
        write(&path, b"short").unwrap();
        let refused = load_or_create(&path).unwrap_err();
        assert!(matches!(refused, KeyFileError::Malformed));
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
    }
}
