//! Builds the emulated CUDA driver and kernel libraries, and runs programs on them.
//!
//! [`Emulator::build`] takes `.cu` files and gives a folder for `LD_LIBRARY_PATH`: `libcuda.so.1` and its companions, and in
//! `kernels/` one shared object per file, compiled by g++ from the very source that nvcc compiles. See the README of the
//! folder above for what the driver does and what it cannot tell.

mod cache;
mod compile;
mod error;
mod libraries;
mod link;
mod source;
mod toolkit;

pub use compile::in_parallel;
pub use error::Error;
pub use source::{Barrier, BarrierKind};
pub use toolkit::{candle_kernels, project_kernels, workspace_root};

use cache::Cache;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use toolkit::Toolkit;

/// How kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checks {
    /// Every load and store is checked for races and bounds, and arithmetic for what C++ leaves undefined.
    On,
    /// None of it, several times faster.
    Off,
}

/// One kernel library: a source, and what is done to it before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernels {
    /// The `.cu` file.
    pub file: PathBuf,
    /// Macros to define, as `NAME` or `NAME=VALUE`.
    pub defines: Vec<String>,
    /// Folders to search for headers, before CUDA's.
    pub includes: Vec<PathBuf>,
    /// The barrier to leave out, by its position in [`Emulator::barriers`].
    pub without_barrier: Option<usize>,
}

impl Kernels {
    /// The kernels of a file as they are.
    pub fn of(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            defines: Vec::new(),
            includes: Vec::new(),
            without_barrier: None,
        }
    }

    /// The same kernels without their `index`th barrier.
    #[must_use]
    pub fn without_barrier(mut self, index: usize) -> Self {
        self.without_barrier = Some(index);
        self
    }

    /// The same kernels with a folder to search for headers.
    #[must_use]
    pub fn include(mut self, folder: impl Into<PathBuf>) -> Self {
        self.includes.push(folder.into());
        self
    }

    /// The same kernels with a macro defined.
    #[must_use]
    pub fn define(mut self, define: impl Into<String>) -> Self {
        self.defines.push(define.into());
        self
    }
}

/// Builds drivers and kernel libraries, and keeps what is up to date.
#[derive(Debug)]
pub struct Emulator {
    toolkit: Toolkit,
    cache: Cache,
}

impl Emulator {
    /// An emulator that keeps what it builds in `folder`.
    ///
    /// # Errors
    ///
    /// If the headers of CUDA are not found: `cargo xtask cuda-toolchain` brings them.
    pub fn new(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self {
            toolkit: Toolkit::find()?,
            cache: Cache::new(folder.as_ref())?,
        })
    }

    /// Builds the driver, and a library for each of `kernels`, and returns the folder for `LD_LIBRARY_PATH`.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, does not compile for the host, or holds no kernel. The message is the compiler's.
    pub fn build(&self, kernels: &[Kernels], checks: Checks) -> Result<PathBuf, Error> {
        let _lock = self.cache.lock()?;
        let driver = libraries::build(&self.toolkit, &self.cache)?;
        let built = compile::kernels(&self.toolkit, &self.cache, kernels, checks)?;
        // A folder per set, so that runs with other kernels can go on beside this one.
        let mut hasher = DefaultHasher::new();
        (&driver, &built).hash(&mut hasher);
        let set = self
            .cache
            .folder()
            .join(format!("set-{:016x}", hasher.finish()));
        // The loader asks for the soname, which is the name up to the hash.
        let soname = |file: &str| {
            file.rsplit_once('-')
                .map_or(file, |(name, _)| name)
                .to_owned()
        };
        cache::link_into(&set, &driver, soname)?;
        cache::link_into(&set.join("kernels"), &built, str::to_owned)?;
        Ok(set)
    }

    /// Builds one kernel library and returns its path, for `CUDA_EMU_KERNELS`.
    ///
    /// # Errors
    ///
    /// As [`Self::build`].
    pub fn build_library(&self, kernels: &Kernels, checks: Checks) -> Result<PathBuf, Error> {
        self.build_libraries(std::slice::from_ref(kernels), checks)?
            .into_iter()
            .next()
            .ok_or_else(|| Error::new("nothing was built"))
    }

    /// Builds a library for each of `kernels`, several at a time, and returns their paths in order.
    ///
    /// # Errors
    ///
    /// As [`Self::build`].
    pub fn build_libraries(
        &self,
        kernels: &[Kernels],
        checks: Checks,
    ) -> Result<Vec<PathBuf>, Error> {
        let _lock = self.cache.lock()?;
        compile::kernels(&self.toolkit, &self.cache, kernels, checks)
    }

    /// The barriers of a kernel file, in the order of the preprocessed text. A macro that is used twice counts twice.
    ///
    /// # Errors
    ///
    /// If the file cannot be preprocessed.
    pub fn barriers(&self, kernels: &Kernels) -> Result<Vec<Barrier>, Error> {
        let of_each = self.barriers_of_each(std::slice::from_ref(kernels))?;
        Ok(of_each.into_iter().flatten().collect())
    }

    /// The same for each of `kernels`, several at a time.
    ///
    /// # Errors
    ///
    /// As [`Self::barriers`].
    pub fn barriers_of_each(&self, kernels: &[Kernels]) -> Result<Vec<Vec<Barrier>>, Error> {
        let _lock = self.cache.lock()?;
        in_parallel(kernels, |kernels| {
            compile::barriers(&self.toolkit, &self.cache, kernels, Checks::On)
        })
    }
}

/// Makes `command` run on the drivers of `folder`.
pub fn emulated<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    let mut path = folder.as_os_str().to_owned();
    if let Some(present) = std::env::var_os("LD_LIBRARY_PATH").filter(|present| !present.is_empty())
    {
        path.push(":");
        path.push(present);
    }
    command.env("LD_LIBRARY_PATH", path)
}

/// The folder in cargo's target folder where the command line keeps what it builds.
pub fn default_folder() -> PathBuf {
    toolkit::target_folder().join("emulated-driver")
}

/// The exit status of a process that the driver ended because of a fault.
pub const FAULT_STATUS: i32 = 97;
