//! Relative links lead to files and headings that exist, and every page can be found.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Component, Path, PathBuf};

use super::{files, read, root};

/// The text without blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    let mut text = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code {
            text += line;
            text += "\n";
        }
    }
    text
}

/// The targets of links and pictures on a page that are no URLs.
fn targets(page: &str) -> Vec<String> {
    let text = prose(page);
    let inline = text.split("](").skip(1);
    let inline = inline.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let tags = text.split("src=\"").skip(1);
    let tags = tags.filter_map(|rest| rest.split_once('"').map(|(target, _)| target));
    inline
        .chain(tags)
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(str::to_owned)
        .collect()
}

/// The anchor of a heading, as forges make it.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

/// `folder/../page` without detours.
fn join(page: &str, target: &str) -> String {
    let folder = Path::new(page).parent().expect("a page is in a folder");
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => {
                assert!(path.pop(), "{page} links out of the repository: {target}");
            }
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path.to_str().expect("names are UTF-8").replace('\\', "/")
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut seen = 0;
    for page in files(".md") {
        for target in targets(&read(&page)) {
            seen += 1;
            let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
            let path = if path.is_empty() {
                page.clone()
            } else {
                join(&page, path)
            };
            let exists = root().join(&path).exists();
            assert!(exists, "{page} links to {target}, which is not there");
            let found = heading.is_empty() || anchors(&read(&path)).contains(heading);
            assert!(found, "{page} links to {target}: no such heading");
        }
    }
    assert!(seen > 20, "only {seen} links were recognised");
}

#[test]
fn every_page_can_be_found_from_the_readme() {
    let mut found = BTreeSet::from(["README.md".to_owned()]);
    let mut queue = VecDeque::from(["README.md".to_owned()]);
    while let Some(page) = queue.pop_front() {
        for target in targets(&read(&page)) {
            let path = target.split('#').next().unwrap_or_default();
            let path = join(&page, path);
            if path.ends_with(".md") && found.insert(path.clone()) {
                queue.push_back(path);
            }
        }
    }
    for page in files(".md") {
        assert!(
            found.contains(&page),
            "{page} cannot be found from README.md"
        );
    }
}
