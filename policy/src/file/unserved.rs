//! What a file may say and nobody would do.

use super::comments::places;
use super::{FileError, PolicyFile, Problem};

/// Why no rule can be limited to local users of the machine it leads to, and what to do instead.
pub const NO_LOGINS: &str = "agents have no SSH server of their own, so a rule netbird-ssh opens the port to every login of the machine; \
     leave it out, and say in the machine's SSH server who may log in as whom (AllowUsers of OpenSSH, for one)";

/// Places in `file`, as the numbers of policy and rule, of rules that are to be limited to local users. What `stored` has in the same
/// rule comes from an earlier version and is none.
pub fn limited(file: &PolicyFile, stored: &PolicyFile) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    for (i, policy) in file.policies.iter().enumerate() {
        let had = stored.policies.iter().find(|had| had.name == policy.name);
        for (j, rule) in policy.rules.iter().enumerate() {
            let had = had.and_then(|had| had.rules.iter().find(|had| had.name == rule.name));
            let limited = rule.ssh.as_ref().is_some_and(|users| !users.is_empty());
            if limited && had.is_none_or(|had| had.ssh != rule.ssh) {
                places.push((i, j));
            }
        }
    }
    places
}

/// Refuses [`limited`] rules, each with its place in `text`, which `file` was read from.
pub fn unserved(text: &str, file: &PolicyFile, stored: &PolicyFile) -> Result<(), FileError> {
    let limited = limited(file, stored);
    if limited.is_empty() {
        return Ok(());
    }
    let places = places(text);
    let problem = |(i, j): (usize, usize)| {
        let place = places.get(&format!("policies/{i}/rules/{j}/ssh_users")).copied().unwrap_or_default();
        let (line, column) = place.key;
        Problem { line, column, message: format!("`ssh_users` is not supported: {NO_LOGINS}") }
    };
    Err(FileError { problems: limited.into_iter().map(problem).collect() })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const LIMITED: &str = "policies:\n  - name: p\n    rules:\n      - {name: r, from: web, to: db, service: netbird-ssh/22, \
                           ssh_users: {web: [root]}}\n";

    #[test]
    fn local_users_are_refused_where_they_stand_unless_they_were_there() {
        let file = parse(LIMITED).unwrap();
        let error = unserved(LIMITED, &file, &PolicyFile::default()).unwrap_err();
        assert_eq!((error.problems.len(), error.problems[0].line, error.problems[0].column), (1, 4, 63));
        assert!(
            error.problems[0].message.contains("`ssh_users` is not supported: agents have no SSH server")
        );
        unserved(LIMITED, &file, &file).unwrap();
        for other in [LIMITED.replace("root", "admin"), LIMITED.replace("name: r", "name: s")] {
            assert!(unserved(&other, &parse(&other).unwrap(), &file).is_err(), "{other}");
        }
    }

    #[test]
    fn a_rule_for_ssh_that_names_nobody_is_served() {
        let text = LIMITED.replace("{web: [root]}", "{}");
        unserved(&text, &parse(&text).unwrap(), &PolicyFile::default()).unwrap();
    }
}
