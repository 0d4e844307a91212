//! The cases of second order, in a process of their own.
//!
//! Candle decides from the environment, once a thread, whether gradients keep their graph. Second derivatives need that they
//! do; the checks of first order run where they do not, as in the programs of users. So this program starts itself again with
//! the variable set and [`FLAG`], and that process prints one [`CaseResult`] a line.

use crate::report::CaseResult;
use std::env;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};

/// The argument that asks for these cases alone.
pub(crate) const FLAG: &str = "keeping-graphs";

/// What Candle reads.
const VARIABLE: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Why the results are not all there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptGraphsError {
    #[error(
        "second derivatives are checked in a process of their own, which cannot be started: {0}"
    )]
    Start(io::Error),
    #[error(
        "second derivatives are checked in a process of their own, which printed {count} of {expected} results and then \
         {end}; see above for what it said"
    )]
    Incomplete {
        count: usize,
        expected: usize,
        end: String,
    },
}

/// Runs the `expected` cases of second order whose names contain `filter` on `device`, and gives each result to `each`.
pub(crate) fn run<E: From<KeptGraphsError>>(
    expected: usize,
    filter: Option<&str>,
    device: &str,
    mut each: impl FnMut(CaseResult) -> Result<(), E>,
) -> Result<(), E> {
    if expected == 0 {
        return Ok(());
    }
    let mut child = env::current_exe()
        .and_then(|program| {
            Command::new(program)
                .arg(format!("--{FLAG}"))
                .args(["--device", device])
                .args(filter.iter().flat_map(|part| ["--filter", part]))
                .env(VARIABLE, "1")
                .stdout(Stdio::piped())
                .spawn()
        })
        .map_err(KeptGraphsError::Start)?;
    let mut count = 0;
    let lines = child
        .stdout
        .take()
        .map(|stdout| BufReader::new(stdout).lines());
    for line in lines.into_iter().flatten() {
        let result = line.map(|line| serde_json::from_str(&line));
        let Ok(Ok(result)) = result else { break };
        each(result)?;
        count += 1;
    }
    let end = match child.wait() {
        // 5 says that a check failed, which the results say as well.
        Ok(status) if count == expected && matches!(status.code(), Some(0 | 5)) => return Ok(()),
        Ok(status) => format!("ended with {status}"),
        Err(error) => format!("was lost: {error}"),
    };
    Err(KeptGraphsError::Incomplete {
        count,
        expected,
        end,
    }
    .into())
}
