//! Compares this crate with the recorded behaviour of diffusers: any folder in the format that
//! `tests/fixtures/oracle/gen_fixtures.py` writes.

pub mod cases;
pub mod compare;
pub mod components;
pub mod schedulers;
pub mod tensors;
pub mod texts;

use std::path::Path;

/// What came of one case.
#[derive(Debug)]
pub enum Verdict {
    /// All within tolerance: the figures.
    Passed(String),
    /// Something is not: what, and by how much.
    Failed(String),
    /// The case needs what is not there yet.
    Unsupported(String),
}

/// A case by its name, and how to run it.
pub struct Case<'a> {
    /// As in `--only`.
    pub name: String,
    /// Runs it.
    pub run: Box<dyn FnOnce() -> Verdict + 'a>,
}

/// All cases of a folder: the edits with `precision`, parts of them in single precision.
///
/// # Errors
/// When the folder's lists cannot be read.
pub fn all(folder: &Path, precision: cases::Precision) -> Result<Vec<Case<'_>>, String> {
    let mut all = cases::list(folder, precision)?;
    all.extend(components::list(folder));
    all.extend(schedulers_of(folder));
    all.extend(texts::list(folder));
    Ok(all)
}

type Compare = fn(&Path) -> Vec<schedulers::Row>;

fn schedulers_of(folder: &Path) -> Vec<Case<'_>> {
    let parts: [(&str, Compare); 2] =
        [("tables", schedulers::tables), ("traces", schedulers::traces)];
    let present = parts
        .into_iter()
        .filter(|(name, _)| folder.join(format!("schedulers/{name}.json")).is_file());
    present
        .map(|(name, compare)| Case {
            name: format!("schedulers.{name}"),
            run: Box::new(move || {
                let rows = compare(folder);
                let count = rows.len();
                let wrong: Vec<String> = rows
                    .into_iter()
                    .filter_map(|row| Some(format!("{}: {}", row.name, row.result.err()?)))
                    .collect();
                if wrong.is_empty() {
                    Verdict::Passed(format!("{count} rows"))
                } else {
                    Verdict::Failed(format!("{} of {count}: {}", wrong.len(), wrong.join("; ")))
                }
            }),
        })
        .collect()
}
