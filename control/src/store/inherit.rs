//! What peers inherit of the users who logged in on them: their auto groups. Each group that a peer enters or leaves is an event of
//! the peer.

use super::account::account;
use super::sql;
use super::write::{Meta, Write};
use super::{Activity, Result, User, groups, peers};

/// A user's groups have changed: the user's peers follow, if the settings say so.
pub(super) async fn follow(write: &mut Write, before: &User, after: &User) -> Result<()> {
    if before.auto_groups == after.auto_groups
        || !account(write.db()).await?.settings.groups_propagation_enabled
    {
        return Ok(());
    }
    for group in before.auto_groups.iter().filter(|group| !after.auto_groups.contains(group)) {
        let members: Vec<String> = sql::query_scalar(
            "SELECT p.id FROM peers p JOIN group_peers m ON m.peer_id = p.id WHERE m.group_id = $1 AND p.user_id = $2
             ORDER BY p.id",
        )
        .bind(group)
        .bind(&after.id)
        .fetch_all(write.db())
        .await?;
        for peer in &members {
            move_peer(write, peer, group, Activity::PeerGroupDelete).await?;
        }
    }
    give(write, Some(&after.id)).await
}

/// Puts the peers of all users into their groups: the settings have just begun to say so.
pub(super) async fn everybody(write: &mut Write) -> Result<()> {
    give(write, None).await
}

/// Puts the peers of a user, or of all users, into the groups of their users.
async fn give(write: &mut Write, user: Option<&str>) -> Result<()> {
    let missing: Vec<(String, String)> = sql::query_as(
        "SELECT p.id, g.group_id FROM user_groups g JOIN peers p ON p.user_id = g.user_id
         LEFT JOIN group_peers m ON m.group_id = g.group_id AND m.peer_id = p.id
         WHERE p.user_id <> '' AND ($1 = '' OR p.user_id = $1) AND m.peer_id IS NULL ORDER BY p.id, g.group_id",
    )
    .bind(user.unwrap_or_default())
    .fetch_all(write.db())
    .await?;
    for (peer, group) in &missing {
        move_peer(write, peer, group, Activity::PeerGroupAdd).await?;
    }
    Ok(())
}

/// Puts a peer into a group, or takes it out of it.
async fn move_peer(write: &mut Write, peer: &str, group: &str, activity: Activity) -> Result<()> {
    const ADD: &str = "INSERT INTO group_peers (group_id, peer_id) VALUES ($1, $2)";
    const REMOVE: &str = "DELETE FROM group_peers WHERE group_id = $1 AND peer_id = $2";
    let before = peers::peer(write.db(), peer).await?;
    let query = if activity == Activity::PeerGroupAdd { ADD } else { REMOVE };
    sql::query(query).bind(group).bind(peer).execute(write.db()).await?;
    let after = peers::peer(write.db(), peer).await?;
    let meta = Meta::name(&after.name)
        .with("group", groups::name(write.db(), group).await?)
        .with("group_id", group)
        .with("peer_ip", after.ip.to_string())
        .before(&before)
        .after(&after);
    write.event(activity, peer, meta).await
}
