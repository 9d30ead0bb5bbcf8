//! Where broker programs are.

use std::path::PathBuf;

use super::BrokerError;

/// Where Debian and others keep servers; not on the `PATH` of a normal user.
const PLACES: [&str; 4] = [
    "/usr/sbin",
    "/usr/local/sbin",
    "/sbin",
    "/opt/homebrew/sbin",
];

/// The program `name`: where the environment variable `variable` says, on the `PATH`, in the
/// system's folders for servers, or in `~/.cache/chat-testkit/bin`, where `./test` puts what it
/// fetched itself.
///
/// # Errors
/// [`BrokerError::Missing`], with the command that installs `package`.
pub fn find(name: &str, variable: &str, package: &str) -> Result<PathBuf, BrokerError> {
    let missing = |install: String| BrokerError::Missing {
        program: name.to_owned(),
        install,
    };
    if let Some(named) = std::env::var_os(variable) {
        let named = PathBuf::from(named);
        if named.is_file() {
            return Ok(named);
        }
        let what = format!("unset {variable}, which names {}", named.display());
        return Err(missing(what));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.map(PathBuf::from));
    let cache = cache().map(|folder| folder.join("chat-testkit/bin"));
    places
        .chain(cache)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| missing(format!("sudo apt-get install -y {package}")))
}

fn cache() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)
}
