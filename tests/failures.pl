#!/usr/bin/perl
# failures.pl SHIM RUNS [JOB[:KIND]..] - for failures.sh and soak-failures.sh: programs with the n-th call of a kind failing
#
# A run that fails must end with exit 1, say why in lines of its own name, leave nothing half-made under a final name, and
# leave a state from which the same command, left alone, makes what it would have made. A run that succeeds all the same must
# have made every byte of it. RUNS: at most so many of each job and kind, spread evenly; the first calls, of which each is
# another place in the code, are taken more densely.
#
# Runs in a folder that prepare() of tests/failures filled. Prints what went wrong, then totals; exit 1 if anything did.
use strict;
use warnings;
use Cwd;
use File::Find;
use IO::Select;

my ($shim, $runs, @only) = @ARGV;
my @kinds = qw(memory write sync rename open truncate seek stat unlink mkdir read);
my $in = getcwd . '/in';
my $worker_count = $ENV{WORKERS} || 2;
if ($ENV{SAN}) { # what it reports is no ordinary failure; it must be loaded behind the shim, whose allocations it makes
    $ENV{ASAN_OPTIONS} = 'detect_leaks=0:allocator_may_return_null=1:verify_asan_link_order=0:exitcode=99';
    $ENV{UBSAN_OPTIONS} = 'halt_on_error=1:print_stacktrace=1:exitcode=99';
    @kinds = ('memory');
}

# What may end by a signal when an allocation of its own fails: libraries that abort() or crash then. Of these no word is
# expected. A library's own streams (stat, seek) are its own to judge; where it succeeds, the bytes are compared.
my $mortal = qr{/(libsentencepiece|libprotobuf|libstdc\+\+|libopenblas|libgomp|libav|libsw|libx26[45]|libopenh264|libdav1d)[^/]*$};

# name => [command, options]:
#   stdin   a file
#   before  a folder whose copy is the working folder
#   live    files which a run that failed may leave in any state: a later one takes them up, or they list what was made
#   lines   of stderr, at most, when other records go on [3]
#   sound   a command that must find nothing wrong after a failure
#   same    one whose lines tell what the folder holds, instead of its files; stands last
#   anew    what is said when some of the work is done, and told on stdout, once more
#   dies    more objects that may (libc's fts_open crashes when it has no memory for its parent entry)
#   slow    fewer runs
my $train = "train-step -m random:tiny --device cpu --threads 1 --state run --lr 1e-3 --warmup 1 --max-steps 4 --save-every 1 --val $in/store --eval-every 2 --eval-clips 1";
my $grade = "grade -m random:owl-tiny:4 --device cpu --threads 1 --frames 2 --max-new-tokens 3 --task sa,pc";
my %job = (
    'curate' => ["curate --videos videos --zips $in/zips --dropped dropped.jsonl --min-aesthetic 4 $in/openvid.csv", live => qr{^dropped}, lines => 9, dies => qr{/libc\.so}],
    'curate-split' => ["curate --no-filter --split train --fraction 0.3 $in/clips.csv"],
    'prompts' => ["prompts $in/prompts.csv"],
    'decode' => ["decode --frames 3 --size 48x32 --threads 1", stdin => "$in/one.jsonl"],
    'vae-encode' => ["vae-encode -m random:tiny --device cpu --threads 1", stdin => "$in/video.mp"],
    'vae-decode' => ["vae-decode -m random:tiny --device cpu --threads 1", stdin => "$in/latents.mp"],
    't5-encode' => ["t5-encode -m random:tiny --device cpu --threads 1", stdin => "$in/prompts.jsonl"],
    't5-encode-batch' => ["t5-encode -m random:tiny --device cpu --threads 1 --batch 32", stdin => "$in/prompts.jsonl"],
    'sample' => ["sample -m random:tiny --device cpu --threads 1 --steps 1 --frames 1 --size 32x32 -a $in/adapter.safetensors", stdin => "$in/embeds.mp"],
    'pack' => ["pack -o store --commit-every 1", stdin => "$in/records.mp", live => qr{^store/}, sound => 'show --check store', same => 'show --jsonl --stats store'],
    'pack-more' => ["pack -o store --commit-every 2", stdin => "$in/changed.mp", before => 'packed', live => qr{^store/}, sound => 'show --check store', same => 'show --jsonl --stats store'],
    'pack-missing' => ["pack --missing -o $in/store", stdin => "$in/wanted.jsonl"],
    'draw' => ["draw --count 3 $in/store"],
    'train-step' => [$train, stdin => "$in/drawn.mp", live => qr{^run/}],
    'train-resume' => [$train, stdin => "$in/drawn.mp", before => 'half', live => qr{^run/}, anew => qr{; going on from the one before$}m],
    'train-devices' => ["train-step -m random:tiny --device cpu,cpu --threads 1 --state run --lr 1e-3 --warmup 1 --max-steps 2 --accumulate 2 --save-every 1", stdin => "$in/drawn.mp", live => qr{^run/}],
    'train-dry' => ["train-step -m random:tiny --device cpu --dry-run --adapter gdn_cssm:k=3"],
    'encode-mp4' => ["encode-mp4 -o videos --sheet sheet.png", stdin => "$in/video.mp", live => qr{^sheet}],
    'grade' => ["$grade --csv scores.csv", stdin => "$in/graded.jsonl", live => qr{^scores}],
    'grade-done' => ["$grade --done $in/done.jsonl", stdin => "$in/graded.jsonl"],
    'collect' => ["collect --missing $in/made.jsonl", stdin => "$in/list.jsonl"],
    'compare' => ["compare --base base --resamples 200 --results results.json $in/base.jsonl $in/k1.jsonl"],
    'compare-json' => ["compare --base base --resamples 200 --format json $in/scores.csv"],
    'plot' => ["plot -o curves.svg $in/half/run", slow => 1],
    'plot-table' => ["plot --table --json $in/half/run"],
    'plot-bars' => ["plot --kind bars -o bars.svg $in/compared.json", slow => 1],
    'report' => ["report --base base --resamples 200 -o page.html $in/base.jsonl $in/k1.jsonl", live => qr{^page}, slow => 1],
    'show' => ["show --jsonl --stats $in/video.mp $in/adapter.safetensors $in/store"],
    'show-check' => ["show --check $in/store"],
    'show-model' => ["show -m random:tiny --jsonl"],
    'tensor-eq' => ["tensor-eq --by-key $in/records.mp $in/records.mp"],
    'tensor-gen' => ["tensor-gen --name a --shape 4,5 --count 3 --meta b={\"c\":[1,2.5,true]}"],
    'tensor-gen-add' => ["tensor-gen --name a --shape 4,5 --add", stdin => "$in/records.mp"],
    'toy-check' => ["toy-check", stdin => "$in/toys.mp"],
    'toy-world' => ["toy-world --count 3 --unlawful 0.5 --frames 3 --size 32x32"],
    'model-init' => ["model-init --shard-bytes 3000000 tiny model", slow => 1],
    'model-convert' => ["model-convert $in/torch model"],
    'model-convert-file' => ["model-convert $in/views.bin views.safetensors"],
);

my %path; # of programs
sub program { my $name = shift; $path{$name} ||= do { my ($p) = grep { -x } map { "$_/$name" } split /:/, $ENV{PATH}; $p } }

sub slurp { local $/; open my $f, "<", $_[0] or return undef; my $text = <$f>; return $text }

# Every file of a folder: name => bytes.
sub files {
    my $dir = shift;
    my %found;
    find({no_chdir => 1, wanted => sub { $found{substr $_, length($dir) + 1} = slurp($_) if -f }}, $dir) if -d $dir;
    return \%found;
}

# The job in the folder, with the n-th call of the kind failing: exit code or -signal, stdout, stderr, what the shim said.
sub run {
    my ($name, $dir, $kind, $n, $rest, $instead) = @_;
    my ($command, %o) = @{$job{$name}};
    $command = $instead if $instead;
    my ($program, @arguments) = split / /, $command;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        chdir $dir or die "$dir: $!";
        open STDIN, '<', $o{stdin} || '/dev/null' or die "$o{stdin}: $!";
        open STDOUT, '>', "$dir.out" or die;
        open STDERR, '>', "$dir.err" or die;
        @ENV{qw(FAIL_PROGRAM FAIL_KIND FAIL_N FAIL_SAID LD_PRELOAD)} = ($program, $kind, $n, "$dir.said", $shim) if $kind;
        $ENV{FAIL_REST} = 1 if $rest;
        alarm 300;
        exec {program($program)} $program, @arguments;
        die "exec: $!";
    }
    waitpid $pid, 0;
    my $status = $? & 127 ? -($? & 127) : $? >> 8;
    my %r = (status => $status, out => slurp("$dir.out"), err => slurp("$dir.err"), said => slurp("$dir.said") // '', files => files($dir));
    unlink "$dir.out", "$dir.err", "$dir.said";
    return \%r;
}

sub fresh {
    my ($name, $dir) = @_;
    my (undef, %o) = @{$job{$name}};
    system('rm', '-rf', $dir);
    $o{before} ? system('cp', '-r', "$in/$o{before}", $dir) : mkdir $dir;
}

# What differs between two sets of files, the names that match `but` left aside.
sub differing {
    my ($a, $b, $but) = @_;
    my %all = (%$a, %$b);
    return grep { !($but && /$but/) && !(defined $a->{$_} && defined $b->{$_} && $a->{$_} eq $b->{$_}) } sort keys %all;
}

# What the job's `same` says of its folder, in order.
sub content {
    my ($name, $dir) = @_;
    return join "\n", sort split /\n/, run($name, $dir, undef, 0, 0, $job{$name}[-1])->{out};
}

# What is wrong with a run of which a call failed: a list of texts, empty when nothing is.
sub judge {
    my ($name, $kind, $rest, $r, $before, $good) = @_;
    my (undef, %o) = @{$job{$name}};
    my ($program) = split / /, $job{$name}[0];
    if ($r->{status} == 0) {
        my @differ = differing($r->{files}, $good->{files}, qr{(^|/)(\.lock|speed\.json)$});
        push @differ, 'stdout' if $r->{out} ne $good->{out} && !($o{anew} && $r->{err} =~ /$o{anew}/m);
        @differ = grep { !/\.tmp-/ } @differ if $kind eq 'unlink';
        return map { "exit 0 with another $_" } @differ;
    }
    return () if $r->{err} =~ /^AddressSanitizer: CHECK failed/m; # its own want of memory
    my @wrong;
    # libgomp's in another thread, of all that fails from there on
    my $gone = $kind eq 'memory' && $rest && $r->{status} == 1 && $r->{err} =~ /^libgomp: Out of memory/m;
    my $died = $gone || $kind eq 'memory' && $r->{said} =~ /^\S+ (\S+)$/m && ($1 =~ $mortal || ($o{dies} && $1 =~ $o{dies})) &&
        ($r->{status} < 0 || $r->{err} =~ /^libgomp: Out of memory/m ||
         ($r->{status} == 99 && $r->{err} =~ /DEADLYSIGNAL.*?^ +#0 \S+( in \S+)? +\(\/(usr\/)?lib/ms));
    if (!$died) {
        push @wrong, "exit $r->{status}" if $r->{status} != 1;
        my %usual = map { $_ => 1 } split /\n/, $good->{err};
        my @said = grep { !$usual{$_} && !/^x264 / && $_ ne '' } split /\n/, $r->{err};
        push @wrong, 'not a word' if !@said;
        push @wrong, 'said: ' . join(' | ', @said) if grep({ !/^\Q$program\E: / } @said) || (@said > ($o{lines} // 3) && !$rest);
    }
    for my $f (sort keys %{$r->{files}}) {
        next if ($o{live} && $f =~ $o{live} && $f !~ /\.tmp-/) || $f =~ m{(^|/)\.lock$};
        next if $f =~ /\.tmp-/ && ($died || $kind eq 'unlink' || ($rest && $f =~ m{/})); # a folder is not emptied for nothing
        next if defined $before->{$f} && $before->{$f} eq $r->{files}{$f};
        next if defined $good->{files}{$f} && $good->{files}{$f} eq $r->{files}{$f};
        push @wrong, "left $f" . (defined $good->{files}{$f} ? ' with other bytes' : '');
    }
    return @wrong;
}

# Which of so many calls fail: all, or `runs` of them, half of these among the first.
sub chosen {
    my ($calls, $most) = @_;
    return 1 .. $calls if $calls <= $most;
    $most = 1 if $most < 1;
    my %n = map { 1 + int($calls * ($_ / $most) ** 2) => 1 } 0 .. $most - 1;
    return sort { $a <=> $b } keys %n;
}

my %only; # kinds of a job; none: all
for (@only) {
    my ($name, $kind) = split /:/;
    defined $job{$name} or die "no job $name\n";
    $only{$name}{$kind // 'all'} = 1;
}
my @jobs = sort keys %{@only ? \%only : \%job};

# One run with a failing call, and what comes after it: the run, and what is wrong.
sub attempt {
    my ($name, $dir, $kind, $n, $before, $good) = @_;
    my (undef, %o) = @{$job{$name}};
    my $rest = $n % 4 == 3;
    fresh($name, $dir);
    my $r = run($name, $dir, $kind, $n, $rest);
    my @wrong = judge($name, $kind, $rest, $r, $before, $good);
    return $r, @wrong if !$r->{status} || !(%{$r->{files}} || $o{before});
    if ($o{sound} && ($o{before} || -e "$dir/store/index.jsonl")) {
        my $sound = run($name, $dir, undef, 0, 0, $o{sound});
        push @wrong, "then not sound: $sound->{out}$sound->{err}" if $sound->{status};
    }
    my $again = run($name, $dir);
    my @differ = $o{same} ? content($name, $dir) eq $good->{content} ? () : 'content'
                          : differing($again->{files}, $good->{files}, qr{(^|/)(\.lock|speed\.json|\.tmp-.*)$});
    push @wrong, $again->{status} ? "then exit $again->{status}: $again->{err}" : "then another @differ" if $again->{status} || @differ;
    return $r, @wrong;
}

# Every so-manieth attempt of each job is this worker's.
sub worker {
    my ($number, $tell) = @_;
    my $dir = getcwd . "/run$number";
    for my $name (@jobs) {
        my (undef, %o) = @{$job{$name}};
        fresh($name, $dir);
        my $before = files($dir);
        my $good = run($name, $dir);
        $good->{content} = content($name, $dir) if $o{same};
        if ($good->{status}) { print $tell "W $name: does not work left alone: $good->{status} $good->{err}\n"; next }
        for my $kind (grep { !$only{$name} || $only{$name}{all} || $only{$name}{$_} } @kinds) {
            fresh($name, $dir);
            my $counted = run($name, $dir, $kind, 0);
            my ($calls) = $counted->{said} =~ /^(\d+)$/m;
            if (!defined $calls) { print $tell "W $name: cannot count calls of $kind: exit $counted->{status} $counted->{err}\n"; next }
            for my $n (grep { $_ % $worker_count == $number } chosen($calls, $o{slow} ? $runs / 4 : $runs)) {
                my ($r, @wrong) = attempt($name, $dir, $kind, $n, $before, $good);
                my ($what, $library) = $r->{said} =~ m{^(\S+) (?:\S*/)?([^\s.]*)};
                print $tell "R $r->{status}\n";
                print $tell "D $name $library\n" if !@wrong && ($r->{status} < 0 || $r->{err} =~ /^libgomp:/m);
                print $tell "W $name: $kind $n of $calls ($what, $library): $_\n" for map { s/\n/ | /gr } @wrong;
            }
        }
    }
    system 'rm', '-rf', $dir;
}

my ($made, $failed, $wrong, %died) = (0, 0, 0);
my @pipes;
for my $i (0 .. $worker_count - 1) {
    pipe my $from, my $to or die;
    $to->autoflush;
    my $pid = fork // die;
    if (!$pid) { close $from; worker($i, $to); exit 0 }
    close $to;
    push @pipes, [$from, $pid];
}
$| = 1;
my $select = IO::Select->new(map { $_->[0] } @pipes);
while (my @ready = $select->can_read) {
    for my $from (@ready) {
        my $line = <$from>;
        if (!defined $line) { $select->remove($from) }
        elsif ($line =~ /^R (\S+)/) { $made++; $failed += $1 != 0 }
        elsif ($line =~ /^D (.*)/) { $died{$1}++ }
        elsif ($line =~ /^W (.*)/) { $wrong++; print "$1\n" }
    }
}
for (@pipes) {
    waitpid $_->[1], 0;
    $wrong++, print "a worker ended with $?\n" if $?;
}
print "killed by a library's own failure: $_, $died{$_} times\n" for sort keys %died;
printf "%d runs, %d of which failed as they should, %d things wrong\n", $made, $failed, $wrong;
exit($wrong ? 1 : 0);
