//! What has been built already, and whether it is up to date.

use crate::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What decides, beside the commands and the files that they read, what is built: this crate's own text.
const BUILDER: [&str; 4] = [
    include_str!("compile.rs"),
    include_str!("libraries.rs"),
    include_str!("link.rs"),
    include_str!("source.rs"),
];

/// A folder of built files, each beside a record of what it was made of.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(crate) fn new(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder)
            .map_err(|error| Error::new(format!("cannot create {}: {error}", folder.display())))?;
        let folder = std::path::absolute(folder)
            .map_err(|error| Error::new(format!("{}: {error}", folder.display())))?;
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps other processes from building into the same folder until the lock is dropped.
    pub(crate) fn lock(&self) -> Result<fs::File, Error> {
        let path = self.folder.join("lock");
        fs::File::create(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| Error::new(format!("cannot lock {}: {error}", path.display())))
    }

    /// Where a file of this name goes that was made by these very commands, and by this very crate.
    pub(crate) fn path(&self, name: &str, extension: &str, made_by: &impl Hash) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (BUILDER, made_by).hash(&mut hasher);
        self.folder
            .join(format!("{name}-{:016x}.{extension}", hasher.finish()))
    }
}

/// Whether `built` exists and every file that it was made of is as it was then.
pub(crate) fn is_current(built: &Path) -> bool {
    let Ok(record) = fs::read_to_string(record_of(built)) else {
        return false;
    };
    built.is_file()
        && !record.is_empty()
        && record.lines().all(|line| {
            line.split_once('\t')
                .is_some_and(|(state, path)| state_of(Path::new(path)).as_deref() == Some(state))
        })
}

/// Writes down what `built` was made of.
pub(crate) fn record(built: &Path, made_of: &[PathBuf]) -> Result<(), Error> {
    let mut text = String::new();
    for path in made_of {
        let state = state_of(path)
            .ok_or_else(|| Error::new(format!("{} has gone away", path.display())))?;
        text.push_str(&format!("{state}\t{}\n", path.display()));
    }
    let record = record_of(built);
    fs::write(&record, text)
        .map_err(|error| Error::new(format!("cannot write {}: {error}", record.display())))
}

/// What `built` was made of, as it was written down.
pub(crate) fn recorded(built: &Path) -> Vec<PathBuf> {
    let record = fs::read_to_string(record_of(built)).unwrap_or_default();
    record
        .lines()
        .filter_map(|line| Some(line.split_once('\t')?.1.into()))
        .collect()
}

fn record_of(built: &Path) -> PathBuf {
    let mut name = built.as_os_str().to_owned();
    name.push(".made-of");
    name.into()
}

/// The size and time of a file.
fn state_of(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} {}", metadata.len(), modified.as_nanos()))
}

/// The files that a make rule (g++'s `-MD`) names as prerequisites.
pub(crate) fn prerequisites(rule: &str) -> Vec<PathBuf> {
    let rule = rule.replace("\\\n", " ");
    let Some((_, files)) = rule.split_once(": ") else {
        return Vec::new();
    };
    // Spaces within names are escaped.
    let marked = files.replace("\\ ", "\0");
    marked
        .split_whitespace()
        .map(|file| PathBuf::from(file.replace('\0', " ")))
        .collect()
}

/// Links each of `files` into `folder` under the name that `name` gives it.
pub(crate) fn link_into(
    folder: &Path,
    files: &[PathBuf],
    name: impl Fn(&str) -> String,
) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::new(format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(failed)?;
    for file in files {
        let link = folder.join(name(
            &file.file_name().unwrap_or_default().to_string_lossy(),
        ));
        if fs::read_link(&link).is_ok_and(|target| target == *file) {
            continue;
        }
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(file, &link).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prerequisites_are_read_from_a_make_rule() {
        let rule = "a.ii: a.cu \\\n /usr/include/x.h /with\\ space/y.h\n";
        let expected = ["a.cu", "/usr/include/x.h", "/with space/y.h"].map(PathBuf::from);
        assert_eq!(prerequisites(rule), expected);
    }

    #[test]
    fn a_changed_source_makes_a_file_stale() {
        let folder = std::env::temp_dir().join(format!("emulate-cache-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (source, built) = (folder.join("a.cu"), folder.join("a.so"));
        fs::write(&source, "one").unwrap();
        assert!(!is_current(&built), "nothing is built");
        fs::write(&built, "").unwrap();
        record(&built, std::slice::from_ref(&source)).unwrap();
        assert!(is_current(&built));
        assert_eq!(recorded(&built), std::slice::from_ref(&source));
        fs::write(&source, "other").unwrap();
        assert!(!is_current(&built), "the source has changed");
        fs::remove_dir_all(&folder).unwrap();
    }
}
