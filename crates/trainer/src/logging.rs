//! Log lines: INFO is the message alone, other levels name themselves; `RUST_LOG` filters.

use std::fmt;
use std::io::{self, Write};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// Installs the subscriber. INFO lines are the result of a command and go to the standard output, unless that is kept for one
/// JSON object; warnings and details go to the standard error.
pub(crate) fn init(json: bool) {
    let filter = EnvFilter::try_from_default_env();
    let bad_filter = match &filter {
        Err(error) if std::env::var_os("RUST_LOG").is_some() => Some(error.to_string()),
        _ => None,
    };
    let layer = tracing_subscriber::fmt::layer()
        .event_format(PlainLines)
        // Colour codes around the fields of a message would end up in files and pipes.
        .with_ansi(false)
        .with_writer(Streams { json })
        // The layer would report its own write errors through `eprintln!`, which panics when that stream is full.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry()
        .with(filter.unwrap_or_else(|_| EnvFilter::new("info")))
        .with(layer);
    // A second call in one process (tests of the library) keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber);
    if let Some(error) = bad_filter {
        tracing::warn!("RUST_LOG is not a filter ({error}); using info");
    }
}

struct PlainLines;

impl<S, N> FormatEvent<S, N> for PlainLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match *event.metadata().level() {
            Level::INFO => {}
            Level::WARN => write!(writer, "warning: ")?,
            Level::ERROR => write!(writer, "error: ")?,
            Level::DEBUG => write!(writer, "debug: ")?,
            Level::TRACE => write!(writer, "trace: ")?,
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

struct Streams {
    json: bool,
}

impl<'a> MakeWriter<'a> for Streams {
    type Writer = Box<dyn Write>;

    fn make_writer(&'a self) -> Self::Writer {
        Box::new(io::stderr())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        if *metadata.level() == Level::INFO && !self.json {
            Box::new(io::stdout())
        } else {
            Box::new(io::stderr())
        }
    }
}
