//! The table of `docs/migrating.md`, for the tests that compare it with what is true.

/// A norm of another framework, and its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which framework, with its version if the row depends on it.
    pub framework: &'static str,
    /// What it calls the norm.
    pub norm: &'static str,
    /// The function of the kernels.
    pub here: &'static str,
    /// Its epsilon, unless a caller has to give one.
    pub eps: Option<f64>,
    /// What 1 becomes, in the row -1, 1, with that epsilon.
    pub one_becomes: Option<f64>,
    /// The weights of the past and of the batch, where there are running statistics.
    pub momentum: Option<[f64; 2]>,
    /// Is the running variance the unbiased one?
    pub unbiased: Option<bool>,
    /// Names of the parameters.
    pub parameters: Vec<&'static str>,
}

/// All rows.
///
/// # Panics
/// If one is not as the table's head says.
pub fn rows() -> Vec<Row> {
    let text = include_str!("../../../docs/migrating.md");
    let table = text.lines().skip_while(|line| !line.starts_with("| framework |")).skip(2);
    table.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// Those of a framework.
pub fn rows_of(framework: &str) -> Vec<Row> {
    rows().into_iter().filter(|row| row.framework == framework).collect()
}

fn row(line: &'static str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let &[framework, norm, here, eps, one_becomes, momentum, variance, parameters] = &cells[..] else {
        panic!("a row of {} cells: {line}", cells.len())
    };
    let number = |cell: &str| cell.parse::<f64>().unwrap_or_else(|_| panic!("{cell:?} is no number: {line}"));
    let given = |cell: &'static str| Some(cell).filter(|cell| !cell.is_empty());
    let weights = |cell: &'static str| match cell.split_once(" of the ") {
        Some((weight, "batch")) => [1.0 - number(weight), number(weight)],
        Some((weight, "past")) => [number(weight), 1.0 - number(weight)],
        _ => panic!("{cell:?} is no momentum: {line}"),
    };
    Row {
        framework,
        norm: norm.trim_matches('`'),
        here: here.trim_matches('`'),
        eps: Some(eps).filter(|eps| *eps != "given").map(number),
        one_becomes: given(one_becomes).map(number),
        momentum: given(momentum).map(weights),
        unbiased: given(variance).map(|kept| match kept {
            "unbiased" => true,
            "biased" => false,
            _ => panic!("{kept:?} is no variance: {line}"),
        }),
        parameters: given(parameters).map_or(Vec::new(), |names| names.split(", ").collect()),
    }
}
