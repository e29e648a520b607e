//! The routes of a config file, written by the tests that need more than one route at `/mcp` with defaults.
//! Called by tests and benchmarks, which hand them to `Plan::routes`.

use std::fmt::{self, Display};

/// One `[[route]]`.
#[derive(Debug, Clone)]
pub struct Route {
    path: String,
    /// The other keys, each a line of TOML.
    lines: Vec<String>,
}

impl Route {
    /// In front of these MCP servers over HTTP, at `/mcp`.
    pub fn upstreams(urls: &[String]) -> Route {
        Route::served_by(format!("upstream = {}", array(urls)))
    }

    /// In front of an MCP server over stdio, one child process per session, at `/mcp`.
    pub fn command(words: &[String]) -> Route {
        Route::served_by(format!("command = {}", array(words)))
    }

    fn served_by(line: String) -> Route {
        Route { path: "/mcp".to_owned(), lines: vec![line] }
    }

    /// At another path.
    pub fn at(mut self, path: &str) -> Route {
        path.clone_into(&mut self.path);
        self
    }

    /// With a key that takes a text: `on_loss`, `transport`, or a time such as `idle_timeout`.
    pub fn text(mut self, key: &str, value: &str) -> Route {
        self.lines.push(format!("{key} = {}", quoted(value)));
        self
    }

    /// With a key that takes a number, such as `max_sessions`.
    pub fn number(mut self, key: &str, value: usize) -> Route {
        self.lines.push(format!("{key} = {value}"));
        self
    }

    /// With this in the environment of its children.
    pub fn env(mut self, variables: &[(&str, &str)]) -> Route {
        let pairs: Vec<String> =
            variables.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
        self.lines.push(format!("env = {{ {} }}", pairs.join(", ")));
        self
    }

    /// With all requests of a caller that have no session at one node.
    pub fn of_one_principal(mut self) -> Route {
        self.lines.push("affinity = { principal = true }".to_owned());
        self
    }
}

impl Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[route]]\npath = {}", quoted(&self.path))?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn array(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

/// A basic string of TOML: what JSON escapes, it escapes alike.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_written_as_a_table() {
        let words = ["sh", "-c", "echo \"hi\""].map(str::to_owned);
        let route = Route::command(&words).at("/x").number("max_sessions", 3).env(&[("A", "1")]);
        assert_eq!(
            route.text("on_loss", "expire").to_string(),
            "[[route]]\npath = \"/x\"\ncommand = [\"sh\", \"-c\", \"echo \\\"hi\\\"\"]\nmax_sessions = 3\n\
             env = { \"A\" = \"1\" }\non_loss = \"expire\"\n"
        );
    }
}
