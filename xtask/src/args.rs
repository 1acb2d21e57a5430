//! The command line: flags, options with a value, and what is left.

use std::env;

use crate::process::Result;

/// The arguments that no one has taken yet.
pub struct Args(Vec<String>);

impl Args {
    /// The arguments of this process, without its own name.
    pub fn from_env() -> Result<Self> {
        let args = env::args_os().skip(1).map(|arg| {
            arg.into_string().map_err(|arg| format!("the argument {arg:?} is not UTF-8").into())
        });
        Ok(Self(args.collect::<Result<_>>()?))
    }

    /// Takes the first argument.
    pub fn subcommand(&mut self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// Takes `--name`, and says whether it was there.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|arg| arg != name);
        self.0.len() < before
    }

    /// Takes every `--name VALUE` and `--name=VALUE`.
    pub fn values(&mut self, name: &str) -> Result<Vec<String>> {
        let mut values = Vec::new();
        let mut rest = Vec::new();
        let mut args = std::mem::take(&mut self.0).into_iter();
        while let Some(arg) = args.next() {
            if arg == name {
                values.push(args.next().ok_or_else(|| format!("{name} needs a value"))?);
            } else if let Some(value) = arg.strip_prefix(name).and_then(|s| s.strip_prefix('=')) {
                values.push(value.to_owned());
            } else {
                rest.push(arg);
            }
        }
        self.0 = rest;
        Ok(values)
    }

    /// Takes `--port N`; the last one counts.
    pub fn port(&mut self, default: u16) -> Result<u16> {
        match self.values("--port")?.pop() {
            None => Ok(default),
            Some(port) => port
                .parse()
                .map_err(|_| format!("--port {port}: a port is a number from 0 to 65535").into()),
        }
    }

    /// The one argument that must be left.
    pub fn one(self, what: &str) -> Result<String> {
        let mut left = self.known()?;
        match (left.pop(), left.is_empty()) {
            (Some(arg), true) => Ok(arg),
            _ => Err(format!("give exactly one {what}").into()),
        }
    }

    /// The one argument that may be left.
    pub fn at_most_one(self, what: &str) -> Result<Option<String>> {
        let mut left = self.known()?;
        match left.len() {
            0 | 1 => Ok(left.pop()),
            _ => Err(format!("give no more than one {what}").into()),
        }
    }

    /// Nothing must be left.
    pub fn none(self) -> Result<()> {
        match self.known()?.first() {
            Some(arg) => {
                Err(format!("what is {arg:?} for? `cargo xtask help` lists it all").into())
            }
            None => Ok(()),
        }
    }

    fn known(self) -> Result<Vec<String>> {
        match self.0.iter().find(|arg| arg.starts_with('-')) {
            Some(arg) => Err(format!("there is no option {arg}").into()),
            None => Ok(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Args;

    fn args(line: &str) -> Args {
        Args(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_are_taken_wherever_they_stand() {
        let mut args = args("parity --only a DIR --browser --only=b");
        assert_eq!(args.subcommand().as_deref(), Some("parity"));
        assert_eq!(args.values("--only").expect("two values"), ["a", "b"]);
        assert!(args.flag("--browser"));
        assert!(!args.flag("--browser"));
        assert_eq!(args.one("DIR").expect("one left"), "DIR");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(args("DIR --only").values("--only").is_err());
        assert!(args("--port 65536").port(0).is_err());
        assert!(args("a b").one("DIR").is_err());
        assert!(args("").one("DIR").is_err());
        assert!(args("a b").at_most_one("DIR").is_err());
        assert!(args("--unknown").none().is_err());
        assert!(args("stray").none().is_err());
    }

    #[test]
    fn an_argument_may_be_optional() {
        let left = |line| args(line).at_most_one("DIR").expect("good");
        assert_eq!((left("a"), left("")), (Some("a".to_owned()), None));
    }

    #[test]
    fn ports_have_a_default() {
        assert_eq!(args("").port(8080).expect("default"), 8080);
        assert_eq!(args("--port 0").port(8080).expect("given"), 0);
    }
}
