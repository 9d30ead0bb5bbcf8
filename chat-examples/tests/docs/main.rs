//! The documentation is true: links lead somewhere, tables are made from the code, the programs
//! that are shown are those that run.

mod capabilities;
mod links;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files of the repository with this ending, relative to its root.
fn files(ending: &str) -> Vec<String> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of ours") {
            let path = entry.expect("it can be read").path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.expect("names are UTF-8");
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    walk(&path, ending, found);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), ending, &mut found);
    let mut found: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(root()).expect("below the root"))
        .map(|path| path.to_str().expect("names are UTF-8").replace('\\', "/"))
        .collect();
    found.sort();
    found
}

/// The first Rust block after a heading.
fn block_after<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(heading).expect("the heading is there");
    let (_, rest) = rest.split_once("```rust\n").expect("a block is there");
    rest.split_once("```").expect("it ends").0
}

#[test]
fn the_program_in_the_readme_is_the_example() {
    let example = read("chat-client/examples/hello.rs");
    let body = example
        .lines()
        .skip_while(|line| line.starts_with("//!") || line.is_empty())
        .fold(String::new(), |all, line| all + line + "\n");
    let shown = read("README.md");
    assert_eq!(block_after(&shown, "## Hello"), body);
}

/// A test that a page names is in the code, so that no claim outlives its proof.
#[test]
fn every_test_that_the_guarantees_name_exists() {
    let sources: Vec<String> = files(".rs").iter().map(|path| read(path)).collect();
    let page = read("docs/guarantees.md");
    let mut named = 0;
    for name in page.split('`').skip(1).step_by(2) {
        let test = name.matches('_').count() >= 2 && !name.contains(['/', ' ', '(']);
        if !test {
            continue;
        }
        named += 1;
        // A scenario of the suite is generic over its world.
        let test = [format!("fn {name}("), format!("fn {name}<")];
        let found = |text: &String| test.iter().any(|signature| text.contains(signature));
        let found = sources.iter().any(found);
        assert!(found, "docs/guarantees.md names {name}, which is no test");
    }
    assert!(named > 30, "only {named} tests were recognised on the page");
}
