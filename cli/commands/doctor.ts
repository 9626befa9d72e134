import { existsSync, readFileSync } from 'node:fs';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Command } from 'commander';
import { debianRelease, installCommand, missing, runNeeds } from '../setup/needs.mjs';
import { writeResult } from '../terminal/output.ts';
import { globalOptions } from './context.ts';

interface Finding {
  readonly need: string;
  readonly found: boolean;
  readonly remedy: string;
}

/** Whether KVM can run a pod VM here: the device opens on some nested machines where no guest ever boots. */
function kvmUsable(): boolean {
  return existsSync('/dev/kvm') && (existsSync('/sys/module/kvm_intel') || existsSync('/sys/module/kvm_amd'));
}

function findings(): Finding[] {
  const release = debianRelease();
  const programs = runNeeds.map((need) => ({
    need: `${need.name} (${need.why})`,
    found: need.found(),
    remedy: installCommand([need]),
  }));
  const memory = Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0) / 1024;
  return [
    {
      need: 'Debian 12 or 13',
      found: release === '12' || release === '13',
      remedy: `this is ${release ?? 'no Debian'}; other systems are untried`,
    },
    {
      need: 'root',
      found: process.getuid?.() === 0,
      remedy: 'run as root: network namespaces, mounts and containerd need it',
    },
    { need: '1 GiB of free memory', found: memory >= 1024, remedy: `only ${Math.round(memory)} MiB are available` },
    { need: '/dev/net/tun', found: existsSync('/dev/net/tun'), remedy: 'modprobe tun' },
    ...programs,
  ];
}

/** `sealpod doctor`: the same needs as the set-up checks, one line each with its remedy. */
export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('check what this machine needs; exits 2 where something is missing')
    .addHelpText('after', '\nExample:\n  sealpod doctor -o json')
    .action((_options: unknown, command: Command) => {
      const found = findings();
      const accelerator = kvmUsable() ? 'kvm' : 'tcg (software emulation: slower, same measurements)';
      const rows = found.map((finding) => [
        finding.found ? 'ok' : 'MISSING',
        finding.need,
        finding.found ? '' : finding.remedy,
      ]);
      writeResult(
        globalOptions(command).output,
        { accelerator, needs: found },
        ['state', 'need', 'remedy'],
        [...rows, ['info', `accelerator: ${accelerator}`, '']],
      );
      const absent = missing(runNeeds);
      if (found.some((finding) => !finding.found)) {
        throw new SealpodError(
          'PREREQUISITE',
          `${found.filter((finding) => !finding.found).length} needs are not met`,
          {
            ...(absent.length > 0 ? { fix: installCommand(absent) } : {}),
          },
        );
      }
    });
}
