//! Fetching without a network: sources and programs are fakes.

use crate::support::{isolated, real_location, small_set, write_small_set};
use fashion_mnist::fetch::{Source, debian::Debian, find_or_fetch_from};
use fashion_mnist::{DataError, Part, SearchOptions, SourceKind, fetch, idx, load};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

type Log = Arc<Mutex<Vec<&'static str>>>;

/// A source that notes each call and hands over what it was given, if anything.
struct Fake {
    name: &'static str,
    calls: Log,
    files: Option<[Vec<u8>; 4]>,
}

impl Source for Fake {
    fn name(&self) -> String {
        self.name.into()
    }

    fn fetch(&self, scratch: &Path) -> Result<[Vec<u8>; 4], DataError> {
        assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0);
        self.calls.lock().unwrap().push(self.name);
        self.files.clone().ok_or(DataError::HubFailed {
            reason: format!("{} is down", self.name),
        })
    }
}

fn fake(name: &'static str, calls: &Log, files: Option<[Vec<u8>; 4]>) -> Box<dyn Source> {
    Box::new(Fake {
        name,
        calls: calls.clone(),
        files,
    })
}

fn real_files() -> [Vec<u8>; 4] {
    let mut parts = Part::ALL.into_iter().zip(&real_location().files);
    [(); 4].map(|()| {
        let (part, path) = parts.next().unwrap();
        idx::read(path, part.kind()).unwrap().file.into_bytes()
    })
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_first_source_that_delivers_ends_the_fetch() {
    let root = tempfile::tempdir().unwrap();
    let options = isolated(root.path());
    let calls = Log::default();
    let sources = [
        fake("first", &calls, None),
        fake("second", &calls, Some(real_files())),
        fake("third", &calls, Some(real_files())),
    ];
    let location = find_or_fetch_from(&options, &sources).unwrap();
    assert_eq!(*calls.lock().unwrap(), ["first", "second"]);
    assert_eq!(location.source, SourceKind::Cache);
    assert_eq!(Some(&location.dir), options.cache.as_ref());
    // Verified on the way in, nothing left beside the four files, and found without a fetch from now on.
    assert_eq!(&location.load().unwrap(), crate::support::real_data());
    let mut expected = Part::ALL.map(|part| part.file_name().to_string());
    expected.sort();
    assert_eq!(names_in(&location.dir), expected);
    assert_eq!(find_or_fetch_from(&options, &sources).unwrap(), location);
    assert_eq!(calls.lock().unwrap().len(), 2);
}

#[test]
fn when_all_fail_every_place_and_source_is_listed_with_its_reason() {
    let root = tempfile::tempdir().unwrap();
    let options = isolated(root.path());
    let calls = Log::default();
    let sources = [fake("one", &calls, None), fake("two", &calls, None)];
    let message = find_or_fetch_from(&options, &sources)
        .unwrap_err()
        .to_string();
    for words in [
        "--data: not given",
        "work/data/fashion-mnist: no such directory",
        "cache/fashion-mnist: no such directory",
        "system: no such directory",
        "FashionMNIST/raw: no such directory",
        "one: the hub's copy could not be had: one is down",
        "two: the hub's copy could not be had: two is down",
        "by hand",
    ] {
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
}

#[test]
fn wrong_data_from_a_source_never_reaches_the_cache() {
    let root = tempfile::tempdir().unwrap();
    let options = isolated(root.path());
    let mut files = real_files();
    files[3][9_000] = (files[3][9_000] + 1) % 10;
    let calls = Log::default();
    let error = find_or_fetch_from(&options, &[fake("liar", &calls, Some(files))]).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("liar: t10k-labels-idx1-ubyte: expected SHA-256"),
        "{message}"
    );
    assert_eq!(names_in(options.cache.as_ref().unwrap()), [""; 0]);
}

#[test]
fn a_named_directory_without_the_data_is_not_made_up_for_by_a_fetch() {
    let root = tempfile::tempdir().unwrap();
    let options = isolated(root.path()).with_explicit(Some(root.path().join("typo")));
    let calls = Log::default();
    let error = find_or_fetch_from(&options, &[fake("source", &calls, Some(real_files()))]);
    assert!(matches!(error, Err(DataError::Given { .. })));
    assert!(calls.lock().unwrap().is_empty());
}

#[test]
fn without_a_cache_directory_the_variables_to_set_are_named() {
    let root = tempfile::tempdir().unwrap();
    let options = SearchOptions {
        cache: None,
        ..isolated(root.path())
    };
    let message = find_or_fetch_from(&options, &[]).unwrap_err().to_string();
    assert!(message.contains("$XDG_CACHE_HOME or $HOME"), "{message}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, b"in the way").unwrap();
    let error = fetch(&file.join("fashion-mnist"), &[]).unwrap_err();
    assert!(matches!(error, DataError::Io { .. }));
    let message = error.to_string();
    assert!(
        message.contains("file/fashion-mnist: cannot create the directory"),
        "{message}"
    );
}

#[test]
fn a_fetch_replaces_the_remains_of_a_broken_one() {
    let cache = small_set();
    std::fs::remove_file(cache.path().join("t10k-labels-idx1-ubyte")).unwrap();
    let sources = [fake("source", &Log::default(), Some(real_files()))];
    fetch(cache.path(), &sources).unwrap();
    assert_eq!(&load(cache.path()).unwrap(), crate::support::real_data());
}

#[test]
fn two_fetches_at_once_both_succeed_and_readers_never_see_half_a_set() {
    let root = tempfile::tempdir().unwrap();
    let options = isolated(root.path());
    let cache = options.cache.clone().unwrap();
    let files = real_files();
    std::thread::scope(|scope| {
        let writers = [(); 2].map(|()| {
            let (files, cache) = (files.clone(), &cache);
            scope.spawn(move || {
                for _ in 0..3 {
                    let source = fake("source", &Log::default(), Some(files.clone()));
                    fetch(cache, &[source]).unwrap();
                }
            })
        });
        let mut seen = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            if let Ok(location) = fashion_mnist::find(&options) {
                location.load().unwrap();
                seen += 1;
            }
        }
        assert!(seen > 0);
    });
    assert_eq!(names_in(&cache).len(), 4);
}

/// A folder of fake programs, and what they share.
struct Programs {
    dir: tempfile::TempDir,
    /// A script being written while another test forks would be busy, so these tests take turns.
    _turn: MutexGuard<'static, ()>,
}

impl Programs {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        Programs {
            _turn: TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Adds a shell script that first notes its arguments. Only absolute paths work in it.
    fn with(self, name: &str, script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.path().join(name);
        let log = self.log_path();
        let text = format!(
            "#!/bin/sh\necho {name} \"$@\" >> '{}'\n{script}\n",
            log.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("calls.log")
    }

    fn calls(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        log.lines().map(str::to_string).collect()
    }

    fn fetch(&self, timeout: Duration) -> Result<[Vec<u8>; 4], DataError> {
        let scratch = tempfile::tempdir().unwrap();
        let source = Debian {
            search_path: self.dir.path().as_os_str().to_owned(),
            timeout,
        };
        source.fetch(scratch.path())
    }
}

const LONG: Duration = Duration::from_secs(60);

/// Unpacks the small set, whatever the package.
fn unpack_from(small: &Path) -> String {
    format!(
        "/bin/mkdir -p \"$3/usr/share/datasets/fashion-mnist\" && /bin/cp '{}'/* \"$3/usr/share/datasets/fashion-mnist/\"",
        small.display()
    )
}

#[test]
fn a_package_is_downloaded_and_unpacked_without_root() {
    let small = small_set();
    let programs = Programs::new()
        .with("apt-get", "echo x > dataset-fashion-mnist_1_all.deb")
        .with("dpkg-deb", &unpack_from(small.path()));
    let files = programs.fetch(LONG).unwrap();
    assert_eq!(files[0], crate::support::images(5));
    assert_eq!(files[3], crate::support::labels(3));
    let calls = programs.calls();
    assert_eq!(calls.len(), 2);
    assert!(
        calls[0].starts_with("apt-get ") && calls[0].ends_with(" download dataset-fashion-mnist")
    );
    assert!(calls[1].starts_with("dpkg-deb --extract ") && calls[1].contains("_1_all.deb"));
}

#[test]
fn empty_package_lists_are_updated_in_a_place_of_our_own() {
    let small = small_set();
    let script = r#"
case "$*" in
    *Dir::State::Lists=*update) echo fetched > lists_are_fresh ;;
    *Dir::State::Lists=*download*) echo x > package.deb ;;
    *) echo "E: Unable to locate package dataset-fashion-mnist" >&2; exit 100 ;;
esac"#;
    let programs = Programs::new()
        .with("apt-get", script)
        .with("dpkg-deb", &unpack_from(small.path()));
    programs.fetch(LONG).unwrap();
    let calls = programs.calls();
    assert_eq!(calls.len(), 4, "{calls:?}");
    assert!(calls[1].contains("Dir::Cache=") && calls[1].ends_with(" update"));
}

#[test]
fn a_failing_program_is_quoted_with_its_status_and_output() {
    let programs = Programs::new()
        .with("apt-get", "echo 'E: the mirror is on fire' >&2; exit 100")
        .with("dpkg-deb", "");
    let error = programs.fetch(LONG).unwrap_err();
    assert!(matches!(error, DataError::ProgramFailed { .. }));
    let message = error.to_string();
    for words in ["apt-get", "100", "E: the mirror is on fire"] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn without_a_network_package_lists_are_not_tried() {
    let failure = "echo \"E: Temporary failure resolving 'mirror'\" >&2; exit 100";
    let programs = Programs::new()
        .with("apt-get", failure)
        .with("dpkg-deb", "");
    let message = programs.fetch(LONG).unwrap_err().to_string();
    assert!(message.contains("Temporary failure resolving"), "{message}");
    assert_eq!(programs.calls().len(), 1);
}

#[test]
fn a_missing_program_is_named() {
    for (there, missing) in [("apt-get", "dpkg-deb"), ("dpkg-deb", "apt-get")] {
        let programs = Programs::new().with(there, "exit 1");
        let error = programs.fetch(LONG).unwrap_err();
        assert!(matches!(error, DataError::ProgramNotFound { program } if program == missing));
        assert!(error.to_string().starts_with(missing), "{error}");
        assert!(programs.calls().is_empty());
    }
}

#[test]
fn a_program_that_hangs_is_killed_at_the_limit() {
    let programs = Programs::new()
        .with("apt-get", "exec /bin/sleep 100")
        .with("dpkg-deb", "");
    let start = Instant::now();
    let error = programs.fetch(Duration::from_millis(200)).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(matches!(error, DataError::TimedOut { .. }));
    let message = error.to_string();
    assert!(
        message.contains("apt-get") && message.contains("0.2 s"),
        "{message}"
    );
}

#[test]
fn a_download_that_leaves_no_package_is_an_error() {
    let programs = Programs::new().with("apt-get", "").with("dpkg-deb", "");
    let message = programs.fetch(LONG).unwrap_err().to_string();
    assert!(message.contains("no package file was left"), "{message}");
}

#[test]
fn an_incomplete_package_is_an_error() {
    let small = tempfile::tempdir().unwrap();
    write_small_set(small.path());
    std::fs::remove_file(small.path().join("train-labels-idx1-ubyte")).unwrap();
    let programs = Programs::new()
        .with("apt-get", "echo x > package.deb")
        .with("dpkg-deb", &unpack_from(small.path()));
    let error = programs.fetch(LONG).unwrap_err();
    assert!(matches!(error, DataError::MissingFiles { found: 3, .. }));
}

#[cfg(feature = "hub")]
#[test]
fn an_unreachable_hub_fails_at_once() {
    use fashion_mnist::fetch::hub::Hub;

    // Nobody listens on the port of a listener that is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let closed = format!("http://127.0.0.1:{port}");
    for (endpoint, proxy) in [
        (closed.clone(), None),
        ("http://no-such-host.invalid".to_string(), None),
        ("http://127.0.0.1:not-a-port".to_string(), None),
        ("https://hub.example".to_string(), Some(closed.clone())),
    ] {
        let named = proxy.clone().unwrap_or_else(|| endpoint.clone());
        let hub = Hub {
            endpoint: Some(endpoint),
            proxy,
            connect_timeout: Duration::from_secs(3),
            timeout: LONG,
        };
        let start = Instant::now();
        let error = hub.fetch(Path::new("unused")).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(10));
        // A resolver that waits for a server runs into the limit instead.
        assert!(
            matches!(
                error,
                DataError::HubUnreachable { .. } | DataError::TimedOut { .. }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains(&named), "{error}");
    }
}
