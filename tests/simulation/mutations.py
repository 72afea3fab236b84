"""Rules taken away one by one: what the simulation must find.

Each is the real thing with one rule broken, counts in `applied` how often that made a difference, and names its rule.
"""

from tests.simulation import rules_of_keeper, rules_of_time
from tests.simulation.mutation import Mutation

MUTATIONS: dict[str, type[Mutation]] = {
    "counted-from-reply": rules_of_time.CountedFromReply,
    "no-kill-margin": rules_of_time.NoKillMargin,
    "late-reply-leads": rules_of_time.LateReplyLeads,
    "bad-timing-accepted": rules_of_time.BadTimingAccepted,
    "rounded-down": rules_of_time.RoundedDown,
    "own-duration": rules_of_time.OwnDuration,
    "wall-clock-believed": rules_of_time.WallClockBelieved,
    "unsigned-release-believed": rules_of_time.UnsignedReleaseBelieved,
    "clock-not-restarted": rules_of_time.ClockNotRestarted,
    "unconditional": rules_of_time.Unconditional,
    "other-holder-ignored": rules_of_time.OtherHolderIgnored,
    "lost-with-grace": rules_of_time.LostWithGrace,
    "conflict-is-loss": rules_of_time.ConflictIsLoss,
    "wipe-is-loss": rules_of_time.WipeIsLoss,
    "error-is-loss": rules_of_time.ErrorIsLoss,
    "created-at-once": rules_of_time.CreatedAtOnce,
    "patient-requests": rules_of_time.PatientRequests,
    "retry-after-obeyed": rules_of_time.RetryAfterObeyed,
    "released-too-early": rules_of_time.ReleasedTooEarly,
    "anothers-released": rules_of_time.AnothersReleased,
    "watch-trusted": rules_of_time.WatchTrusted,
    "twin-taken-over": rules_of_time.TwinTakenOver,
    "transitions-as-token": rules_of_time.TransitionsAsToken,
    "transitions-on-renewal": rules_of_time.TransitionsOnRenewal,
    "acquire-time-moves": rules_of_time.AcquireTimeMoves,
    "stamped-plainly": rules_of_time.StampedPlainly,
    "never-waits-for-ack": rules_of_keeper.NeverWaitsForAck,
    "any-gone-believed": rules_of_keeper.AnyGoneBelieved,
    "useless-grant-kept": rules_of_keeper.UselessGrantKept,
    "starts-late": rules_of_keeper.StartsLate,
    "kills-blindly": rules_of_keeper.KillsBlindly,
    "nobody-acts-for-keeper": rules_of_keeper.NobodyActsForKeeper,
    "no-third-eyes": rules_of_keeper.NoThirdEyes,
    "hung-elector-kept": rules_of_keeper.HungElectorKept,
    "term-lost": rules_of_keeper.TermLost,
    "lease-no-limit": rules_of_keeper.LeaseNoLimit,
    "no-dead-man": rules_of_keeper.NoDeadMan,
    "gone-with-survivors": rules_of_keeper.GoneWithSurvivors,
    "grace-after-the-end": rules_of_keeper.GraceAfterTheEnd,
}
