/*
 * The hand-over of one guest, as engine/source_migration.cc, source_activation.cc,
 * destination_migration.cc and cli/recovery.cc do it (docs/handover.md has the words).
 *
 * What is modelled
 *   - both ramferries, their journals, and the two QEMUs, which live on when a ramferry is killed;
 *   - control messages as a set: what was sent may arrive late, never, twice, and in any order;
 *     a wait may end at any moment, because nobody can tell late from never;
 *   - SIGKILL of either ramferry between any two steps, and its restart (or `ramferry resolve`, which
 *     does the same), as often as FAULTS allows; what it knew is lost, its journal is not;
 *   - a journal write or removal that reports an error, whether or not it reached the disk (WRITES);
 *     a verdict of the destination that could not be written is kept in its memory (engine/records.h);
 *   - either QEMU killed at any moment (KILLS);
 *   - an operator who has made sure that the other host is dead and says so (OPERATOR).
 * "reserved" stands for "starting" as well: nothing differs between them but whether QEMU is there yet.
 * What is not: pages and devices (before the image is whole nothing can go wrong that is not a plain
 * give-up), a host's power loss (its guests are lost with it), and an operator who says what is not so.
 *
 * Checked by scripts/model. MUTANT=1.. builds in one mistake each, which the check must find.
 */
#ifndef FAULTS
#define FAULTS 3
#endif
#ifndef WRITES
#define WRITES 1
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

mtype = { none, pausing, handing, gone, returned };               /* the source's journal */
mtype = { reserved, holding, activating, activated, released };   /* the destination's (and none) */
mtype = { running, paused, ended };                               /* a QEMU and its guest */
mtype = { unknown, undecided, owned, givenup };                   /* verdicts */

mtype source_journal = none;
mtype destination_journal = none;
mtype remembered = none;           /* by a living ramferry receive: activated or released, not on its disk */
mtype source_guest = running;
mtype destination_guest = paused;  /* it waits, with nothing in it, and then with the image */

/* Messages that were sent. */
bool image, held, hand_over, abort;        /* image: ImageComplete; held: Holding */
bool told_running, handed_back, refused;   /* told_running: Activated */

bool source_up = true;        /* a ramferry is at work on this migration */
bool destination_up = true;   /* ramferry receive lives */
bool destination_serves;      /* ... and is inside DestinationMigration::Run for this migration */
bool destination_answers;     /* ... and answers Settle and Confirm */
bool saved;                   /* the source's QEMU is in postmigrate: it never resumes by itself */
bool whole;                   /* the destination's QEMU holds the image */

/* Ghosts: what really happened, for the properties. */
bool ran_there;               /* the destination's guest has run */
bool source_killed, destination_killed;   /* a QEMU was killed from outside */
bool host_is_dead;            /* the operator saw to it */
bool disk_refused;            /* "activating" was written, and nothing after it */

byte faults = FAULTS;
byte losses = FAULTS;  /* of questions and their answers: links work at last */
byte writes = WRITES;
byte kills = KILLS;
bool source_dies, destination_dies;

/* The rule. */
#define two_running (source_guest == running && destination_guest == running)
#define none_can_run (source_guest == ended && !source_killed && !ran_there)
#define here (source_guest == running && destination_guest != running)
#define there (source_guest != running && destination_guest == running)
#define one_runs (here || there)

/* A journal write: it is on disk, or it failed and is there or not. */
#define WRITE(journal, phase, ok) \
	if \
	:: atomic { journal = phase; ok = true } \
	:: atomic { writes > 0 -> writes--; ok = false; journal = phase } \
	:: atomic { writes > 0 -> writes--; ok = false } \
	fi

inline run_source() {
	atomic { if :: source_guest == paused -> source_guest = running :: else fi; saved = false }
}
inline discard_source() {
	atomic {
		assert(ran_there);
		if :: source_guest != ended -> source_guest = ended :: else fi
	}
}
/* cont, and its answer: not ok when QEMU has ended, before it or just then. */
inline run_destination() {
	atomic {
		ok = destination_guest != ended;
		if
		:: destination_guest == paused -> assert(whole); destination_guest = running; ran_there = true
		:: else
		fi
	}
}
inline discard_destination() {
	atomic { assert(destination_guest != running); destination_guest = ended }
}

/* Settle, one call: no answer, or what the destination's journal says (VerdictOf). */
inline ask() {
	verdict = none;
	if
	:: atomic { losses > 0 -> losses-- }
	:: !destination_answers
	:: atomic {
		destination_answers ->
		if
		:: remembered == activated -> verdict = owned
		:: remembered == released -> verdict = givenup
		:: else ->
		if
		:: destination_journal == activated -> verdict = owned
		:: destination_journal == released -> verdict = givenup
		:: destination_journal == none -> verdict = unknown
#if MUTANT == 2  /* "it does not run yet, so it is the source's": said without being written down */
		:: destination_journal == holding -> verdict = givenup
		:: destination_journal == activating || destination_journal == reserved -> verdict = undecided
#else
		:: destination_journal == activating && !destination_serves -> verdict = unknown
		:: destination_journal == activating && destination_serves -> verdict = undecided
		:: destination_journal == reserved || destination_journal == holding -> verdict = undecided
#endif
		fi
		fi
	}
	fi
}
inline confirm() {
	if
	:: true  /* lost, or too early */
	:: atomic {
		destination_answers &&
		(destination_journal == activated || destination_journal == released || remembered != none) ->
		destination_journal = none; remembered = none
	}
	fi
}

/* The destination's last word: on disk, or at least in memory. */
inline last_word(phase) {
	WRITE(destination_journal, phase, ok);
	if :: !ok -> remembered = phase :: else fi
}

inline finish_gone() {
	WRITE(source_journal, gone, written);
	discard_source();
	WRITE(source_journal, none, forgotten);
	if :: written || forgotten -> confirm() :: else fi
}
inline finish_returned() {
	WRITE(source_journal, returned, written);
	run_source();
	WRITE(source_journal, none, forgotten);
	if :: forgotten -> confirm() :: else fi
}

active proctype Source() {
	mtype verdict = none;
	bool written, forgotten;

	{
		WRITE(source_journal, pausing, written);
		if :: !written -> goto give_up :: else fi;
		atomic { if :: source_guest == running -> source_guest = paused :: else -> goto give_up fi };
		if :: true -> atomic { saved = true; image = true } :: goto give_up fi;
		if  /* stage 4: waiting for Holding */
		:: held
		:: goto give_up  /* lost, late, refused, cancelled */
		fi;
#if MUTANT == 5  /* the message leaves before it is written down */
		hand_over = true;
#endif
		WRITE(source_journal, handing, written);
		if :: !written -> goto give_up_quietly :: else fi;
		hand_over = true;
		if  /* stage 5: waiting for the answer */
		:: told_running -> finish_gone(); goto over
		:: handed_back || refused -> finish_returned(); goto over
		:: true  /* lost, or late, or another message again */
		fi;
#if MUTANT == 1  /* no answer: it will not have come through */
		finish_returned(); goto over;
#endif
		do
		:: ask();
			if
			:: verdict == owned -> finish_gone(); goto over
			:: verdict == givenup -> finish_returned(); goto over
			:: else -> if :: true :: goto over /* settle_time is over: in doubt */ fi
			fi
		od;
give_up:
		abort = true;
give_up_quietly:
		run_source();
		WRITE(source_journal, none, written);
		if :: written -> abort = true :: else fi;
over:		skip
	} unless { source_dies }

	/* Dead, or ended. What follows is a new ramferry: `migrate` of the same guest, or `resolve`. */
	do
	:: atomic { source_dies = false; source_up = false };
		{
			source_journal != none;
			atomic { source_up = true; verdict = none };
			if
			:: source_journal == pausing || source_journal == returned ->
				run_source();
				WRITE(source_journal, none, forgotten);
				confirm()
			:: source_journal == gone ->
				discard_source();
				WRITE(source_journal, none, forgotten);
				confirm()
			:: source_journal == handing ->
				ask();
#ifdef OPERATOR
				if
				:: verdict == none && host_is_dead && !ran_there -> verdict = givenup  /* --run-here */
				:: verdict == none && ran_there -> verdict = owned  /* --discard-here */
				:: else
				fi;
#endif
				if
				:: verdict == owned ->
					discard_source(); WRITE(source_journal, none, forgotten); confirm()
				:: verdict == givenup ->
					run_source(); WRITE(source_journal, none, forgotten); confirm()
#if MUTANT == 6  /* nobody knows it, so it cannot be there */
				:: verdict == unknown ->
					run_source(); WRITE(source_journal, none, forgotten)
#endif
				:: else
				fi
			:: else
			fi
		} unless { source_dies }
	od
}

active proctype Destination() {
	bool ok, promised;

	{
		destination_answers = true;
		WRITE(destination_journal, reserved, ok);
		if :: !ok -> goto release :: else fi;
		destination_serves = true;
		if
		:: image
		:: goto release  /* abort, lost, silent, stopped */
		fi;
		atomic { if :: destination_guest == paused -> whole = true :: else -> goto release fi };
#if MUTANT == 3  /* the promise leaves before it is written down */
		promised = true; held = true;
		WRITE(destination_journal, holding, ok);
#else
		WRITE(destination_journal, holding, ok);
		if :: !ok -> goto release :: else fi;
		promised = true;
		held = true;
#endif
		if
		:: hand_over
		:: goto release
		fi;
		WRITE(destination_journal, activating, ok);
		if
		:: !ok -> goto give_back
		:: ok && destination_guest == ended -> goto give_back  /* query-status finds it dead */
		:: else
		fi;
		run_destination();
		if :: !ok -> goto over :: else fi;  /* QEMU died just now: nobody knows */
		told_running = true;
		last_word(activated);
		goto over;
give_back:
#if MUTANT == 8  /* "it is yours" is told from memory while the guest could still be run by a restart */
		remembered = released;
#endif
#if MUTANT != 7  /* 7: a crash after the discard leaves "activating" without a QEMU */
		WRITE(destination_journal, holding, ok);
		if :: destination_journal != holding -> disk_refused = true :: else fi;
#endif
		discard_destination();
		last_word(released);
		handed_back = true;
		goto over;
release:
		discard_destination();
		if
		:: !promised || abort -> WRITE(destination_journal, none, ok)
		:: promised -> last_word(released)
		fi;
		refused = true;
over:		destination_serves = false
	} unless { destination_dies }

	/* Dead: a new `ramferry receive` settles what is left before it answers. Not dead, but unsettled
	 * (a write failed): Settle settles it when it is asked, or writes down what is remembered. */
	do
	:: !destination_dies && remembered != none;
		{
			WRITE(destination_journal, remembered, ok);
			if :: ok -> remembered = none :: else fi
		} unless { destination_dies }
	:: destination_dies || (remembered == none && destination_journal != none &&
		destination_journal != activated && destination_journal != released);
		atomic {
			if
			:: destination_dies ->
				destination_dies = false; destination_answers = false; remembered = none
			:: else
			fi;
			destination_serves = false
		};
		{
			!host_is_dead;
			if
			:: destination_journal == reserved ->
				discard_destination(); WRITE(destination_journal, none, ok)
			:: destination_journal == holding ->
				discard_destination(); WRITE(destination_journal, released, ok)
			:: destination_journal == activating ->
#if MUTANT == 4  /* not known to run, so it does not */
				destination_journal = released;
#else
				run_destination();
				if
				:: ok -> WRITE(destination_journal, activated, ok)
				:: else  /* it may have run for a moment: the operator's to settle */
				fi
#endif
			:: else
			fi;
			destination_answers = true
		} unless { destination_dies }
	od
}

/* What may happen at any moment. */
active proctype Misfortune() {
end:	do
	:: atomic { faults > 0 && !source_dies -> faults--; source_dies = true }
	:: atomic { faults > 0 && !destination_dies && !host_is_dead -> faults--; destination_dies = true }
	:: atomic { kills > 0 && source_guest != ended -> kills--;
		source_killed = true; source_guest = ended }
	:: atomic { kills > 0 && destination_guest != ended -> kills--;
		destination_killed = true; destination_guest = ended }
	/* QEMU resumes a guest whose migration breaks before its devices were saved. */
	:: atomic { source_guest == paused && !saved && !source_up -> source_guest = running }
#ifdef OPERATOR
	:: atomic { !host_is_dead && source_journal == handing && !source_up ->
		host_is_dead = true; destination_answers = false; destination_dies = true;
		destination_guest = ended }
#endif
	od
}

/* The destination's QEMU ended in "activating", and nobody can say whether the guest had run: it is
 * paused at the source, for the operator to settle. */
#define in_doubt (source_guest == paused && source_journal == handing && \
	destination_journal == activating && destination_guest == ended)
#define died (source_killed || (ran_there && destination_guest == ended))

ltl one_owner { [] (!two_running && !none_can_run) }
/* Links that work at last, and ramferries that are started again, bring back one running guest, unless
 * the disk refuses the one write that says that it never ran. */
ltl runs_again { <> [] (one_runs || (disk_refused && in_doubt)) }
/* With killed QEMUs: or the guest died with the QEMU that it ran in. */
ltl runs_or_doubt { <> [] (one_runs || died || in_doubt) }
