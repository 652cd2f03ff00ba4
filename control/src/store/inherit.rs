//! What peers inherit of the users who logged in on them: their auto groups.

use super::account::account;
use super::sql;
use super::write::Write;
use super::{Result, User};

/// A user's groups have changed: the user's peers follow, if the settings say so.
pub(super) async fn follow(write: &mut Write, before: &User, after: &User) -> Result<()> {
    if before.auto_groups == after.auto_groups
        || !account(write.db()).await?.settings.groups_propagation_enabled
    {
        return Ok(());
    }
    for group in before.auto_groups.iter().filter(|group| !after.auto_groups.contains(group)) {
        sql::query(
            "DELETE FROM group_peers WHERE group_id = $1 AND peer_id IN (SELECT id FROM peers WHERE user_id = $2)",
        )
        .bind(group)
        .bind(&after.id)
        .execute(write.db())
        .await?;
    }
    give(write, &after.id).await
}

/// Puts the peers of a user into the user's groups.
pub(super) async fn give(write: &mut Write, user: &str) -> Result<()> {
    sql::query(
        "INSERT INTO group_peers (group_id, peer_id) SELECT g.group_id, p.id FROM user_groups g
         JOIN peers p ON p.user_id = g.user_id WHERE g.user_id = $1 ON CONFLICT DO NOTHING",
    )
    .bind(user)
    .execute(write.db())
    .await?;
    Ok(())
}

/// Puts the peers of all users into their groups: the settings have just begun to say so.
pub(super) async fn everybody(write: &mut Write) -> Result<()> {
    sql::query(
        "INSERT INTO group_peers (group_id, peer_id) SELECT g.group_id, p.id FROM user_groups g
         JOIN peers p ON p.user_id = g.user_id WHERE p.user_id <> '' ON CONFLICT DO NOTHING",
    )
    .execute(write.db())
    .await?;
    Ok(())
}
