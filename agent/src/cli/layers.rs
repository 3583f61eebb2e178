//! The command line of `layers`. Needs, their values and their help are the knowledge's.

use clap::{
    Args, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser},
};

use crate::knowledge::{
    data,
    data::Need,
    select::{Asked, values},
};

/// Flags of `layers`.
#[derive(Args, Debug)]
pub struct LayersArgs {
    /// What to ask; without it an overview is printed.
    #[command(subcommand)]
    pub command: Option<LayersCommand>,
    /// How to print.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub output: Form,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For a terminal.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// For a document.
    Markdown,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum LayersCommand {
    /// All that is known under a name: a layer, a place, a technology, a concept, a word of
    /// jargon, or a cause.
    Show {
        /// E.g. L-3, host, gvisor, service-mesh, virtqueue, cpu_throttle.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Compare layers, technologies and wider concepts, differences first.
    Compare {
        /// E.g. L-3 gvisor firecracker service-mesh.
        #[arg(value_name = "NAME", num_args = 2.., required = true)]
        names: Vec<String>,
    },
    /// Say which layers to use for what is needed, and which rule decides.
    Select(Box<SelectArgs>),
}

/// What is needed.
#[derive(Args, Debug)]
pub struct SelectArgs {
    /// What it is for.
    #[arg(long, help = help("scenario"), value_parser = words("scenario"))]
    pub scenario: Option<String>,
    /// Longest start.
    #[arg(long, value_name = "TIME", help = help("cold-start-below"), value_parser = limit("cold-start-below"))]
    pub cold_start_below: Option<String>,
    /// Most memory.
    #[arg(long, value_name = "SIZE", help = help("memory-below"), value_parser = limit("memory-below"))]
    pub memory_below: Option<String>,
    /// Most CPU time.
    #[arg(long, value_name = "PERCENT", help = help("cpu-below"), value_parser = limit("cpu-below"))]
    pub cpu_below: Option<String>,
    /// Isolation.
    #[arg(long, help = help("isolation"), value_parser = words("isolation"))]
    pub isolation: Option<String>,
    /// Density.
    #[arg(long, help = help("density"), value_parser = words("density"))]
    pub density: Option<String>,
    /// Network.
    #[arg(long, help = help("network"), value_parser = words("network"))]
    pub network: Option<String>,
    /// Storage.
    #[arg(long, help = help("storage"), value_parser = words("storage"))]
    pub storage: Option<String>,
    /// Compliance.
    #[arg(long, help = help("compliance"), value_parser = words("compliance"))]
    pub compliance: Option<String>,
    /// Cost.
    #[arg(long, help = help("cost"), value_parser = words("cost"))]
    pub cost: Option<String>,
}

impl SelectArgs {
    /// Needs with their values.
    pub fn needs(&self) -> impl Iterator<Item = (&str, &str)> {
        [
            ("scenario", &self.scenario),
            ("cold-start-below", &self.cold_start_below),
            ("memory-below", &self.memory_below),
            ("cpu-below", &self.cpu_below),
            ("isolation", &self.isolation),
            ("density", &self.density),
            ("network", &self.network),
            ("storage", &self.storage),
            ("compliance", &self.compliance),
            ("cost", &self.cost),
        ]
        .into_iter()
        .filter_map(|(need, value)| Some((need, value.as_deref()?)))
    }
}

fn need(id: &str) -> &'static Need {
    let need = data().selection.needs.iter().find(|need| need.id == id);
    need.expect("a test compares the flags with the needs")
}

fn help(id: &str) -> &'static str {
    &need(id).help
}

fn words(id: &'static str) -> PossibleValuesParser {
    let rules = values(id).filter_map(|rule| {
        let value = rule.value.as_deref()?;
        Some(PossibleValue::new(value).help(&*rule.because))
    });
    PossibleValuesParser::new(rules)
}

fn limit(id: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync {
    move |text| match Asked::new(id, text) {
        Ok(asked) => Ok(asked.value),
        Err(wrong) => Err(wrong.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_flags_are_the_needs() {
        let command = Cli::command();
        let layers = command.find_subcommand("layers").unwrap();
        let select = layers.find_subcommand("select").unwrap();
        let mut flags: Vec<_> = select
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .filter(|long| !["help", "output"].contains(long))
            .collect();
        let mut needs: Vec<_> = data().selection.needs.iter().map(|n| &*n.id).collect();
        flags.sort_unstable();
        needs.sort_unstable();
        assert_eq!(flags, needs);
    }
}
