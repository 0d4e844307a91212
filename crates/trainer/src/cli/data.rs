//! `data`: where the data set is, and its checksums.

use clap::Args;
use serde_json::json;

use super::options::DataFolder;
use super::output;
use crate::dataset;
use crate::errors::{Result, TrainerError};

/// Find or fetch the data set, verify it, and print where it is and its checksums.
#[derive(Args, Debug)]
pub(super) struct DataArgs {
    #[command(flatten)]
    data: DataFolder,
    /// Print one JSON object on the standard output, everything else on the standard error
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &DataArgs) -> Result<()> {
    let location = dataset::locate(args.data.data.as_deref())?;
    let files = location.describe()?;
    if args.json {
        let listed: Vec<_> = files
            .iter()
            .map(|file| {
                json!({
                    "name": file.part.file_name(),
                    "path": file.path,
                    "bytes": file.bytes,
                    "count": file.count,
                    "sha256": file.sha256,
                    "genuine": file.genuine,
                })
            })
            .collect();
        output::json(&json!({
            "path": location.dir,
            "source": location.source.to_string(),
            "files": listed,
        }))?;
    } else {
        let mut text = format!("{} ({})\n", location.dir.display(), location.source);
        for file in &files {
            let verdict = if file.genuine { "ok" } else { "WRONG" };
            text += &format!(
                "{:<24} {:>10} bytes  {:>6} items  {}  {verdict}\n",
                file.part.file_name(),
                file.bytes,
                file.count,
                file.sha256
            );
        }
        output::text(&text)?;
    }
    // The full check also looks at counts and at files under each other's names, and words what is wrong.
    if files.iter().all(|file| file.genuine) {
        return Ok(());
    }
    match location.load() {
        Err(error) => Err(error.into()),
        Ok(_) => Err(TrainerError::Data(
            "a checksum is not Fashion-MNIST's".into(),
        )),
    }
}
